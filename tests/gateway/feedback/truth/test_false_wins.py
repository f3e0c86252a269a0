"""Two arms that are the same, watched all the time: how often does one ever win?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.experiment import Sums
from tests.gateway.feedback.truth.crowds import ALPHA, compared, ever, looked, naive, ones, p_values


def told(what: str, **rates: float) -> None:
    print(f"\n{what}: " + ", ".join(f"{name} {rate:.3f}" for name, rate in rates.items()))


def test_of_independent_users():
    _independent(0.3, planned=1000, runs=1000)


@pytest.mark.long
@pytest.mark.parametrize(("rate", "planned"), [(0.3, 1000), (0.02, 1000), (0.5, 10_000)])
def test_of_independent_users_by_the_thousand(rate: float, planned: int):
    _independent(rate, planned=planned, runs=2000)


def _independent(rate: float, *, planned: int, runs: int) -> None:
    rng = np.random.default_rng(1)
    arms = rng.random((2, runs, 2000), dtype=np.float32) < rate
    found = compared(ones(arms[0], 10), ones(arms[1], 10))
    ours = ever(p_values(found, planned=planned) < ALPHA)
    told(f"independent, rate {rate}, N* {planned}", naive=ever(naive(found)), ours=ours)
    assert ours <= ALPHA < ever(naive(found))


@pytest.mark.long
@pytest.mark.parametrize(("share", "tail"), [(0.5, 1.0), (0.9, 0.7)])
def test_of_numbers_with_a_heavy_tail(share: float, tail: float):
    """Milliseconds, lognormal: of a thousand, a few are ten (five) times the median. A look every 20 units of both."""
    rng = np.random.default_rng(2)
    every = (round(20 * share), round(20 * (1 - share)))
    arms = [rng.lognormal(6, tail, (1500, 150 * one)) for one in every]
    found = compared(ones(arms[1], every[1]), ones(arms[0], every[0]), bounded=False)
    ours = ever(p_values(found) < ALPHA)
    told(f"lognormal {tail}, {share:.0%} in the control", naive=ever(naive(found)), ours=ours)
    assert ours <= ALPHA < ever(naive(found))


def test_of_users_who_judge_ten_times_each():
    """Users differ, and each judges ten times. Counted per judgement, even a sequence is fooled."""
    rng = np.random.default_rng(3)
    leaning = rng.beta(1, 1, (2, 1000, 400, 1))
    judged = rng.random((2, 1000, 400, 10)) < leaning
    single = [ones(arm.reshape(1000, 4000), 100) for arm in judged]
    per_judgement = compared(*single)
    users = [looked(10, np.full((1000, 400), 10), arm.sum(axis=2)) for arm in judged]
    per_user = compared(*users)
    rates = {
        "naive per judgement": ever(naive(per_judgement)),
        "sequence per judgement": ever(p_values(per_judgement) < ALPHA),
        "naive per user": ever(naive(per_user)),
        "ours": ever(p_values(per_user, planned=500) < ALPHA),
    }
    told("ten judgements a user", **rates)
    assert rates.pop("ours") <= ALPHA < min(rates.values())


@pytest.mark.long
def test_of_users_who_come_back_uneven_often():
    """Some judge once, some thirty times, and the busy ones are happier: the ratio of sums, per user."""
    rng = np.random.default_rng(4)
    counts = rng.geometric(0.25, (2, 2000, 500))
    totals = rng.binomial(counts, rng.beta(1 + counts / 4, 2))
    found = compared(*(looked(10, n, s) for n, s in zip(counts, totals, strict=True)))
    ours = ever(p_values(found) < ALPHA)
    told("uneven users", naive=ever(naive(found)), ours=ours)
    assert ours <= ALPHA < ever(naive(found))


def _late_and_twice(rng: np.random.Generator, *, runs: int, users: int, looks: Any, latest: bool) -> Sums:
    """Users come evenly in [0, 1) and judge three times; a judgement comes late, some come again later, half of those
    with another value. The tally's rule is `latest`: one value per judgement, the newest. Else all rows count."""
    came = np.sort(rng.random((runs, users, 1)), axis=1)
    leaning = rng.beta(1, 1, (runs, users, 1))
    value, other = rng.random((2, runs, users, 3)) < leaning
    arrives = came + rng.exponential(np.where(value, 0.02, 0.1))  # the unhappy take longer
    again = np.where(rng.random(arrives.shape) < 0.4, arrives + rng.exponential(0.1, arrives.shape), np.inf)
    second = np.where(rng.random(arrives.shape) < 0.5, value, other)
    fields: dict[str, list[Any]] = {name: [] for name in ("units", "n", "s", "nn", "ns", "ss")}
    for look in looks:
        here, back = arrives <= look, again <= look
        n = here.sum(axis=2) + (0 if latest else back.sum(axis=2))
        first = here & value & ~back if latest else here & value
        s = (first.sum(axis=2) + (back & second).sum(axis=2)).astype(float)
        for name, one in (("units", n > 0), ("n", n), ("s", s), ("nn", n * n), ("ns", n * s), ("ss", s * s)):
            fields[name].append(one.sum(axis=1))
    return Sums(**{name: np.stack(column, axis=1)[..., None] for name, column in fields.items()})


@pytest.mark.long
def test_of_feedback_that_arrives_late_or_twice():
    rng = np.random.default_rng(5)
    looks = np.linspace(0.05, 1.3, 40)
    arms = [_late_and_twice(rng, runs=400, users=400, looks=looks, latest=True) for _ in range(2)]
    found = compared(*arms)
    rates = {"naive": ever(naive(found)), "ours": ever(p_values(found, planned=500) < ALPHA)}
    told("late and twice", **rates)
    assert rates["ours"] <= ALPHA < rates["naive"]
    assert arms[0].n.max() <= 400 * 3, "twice is once"


@pytest.mark.long
def test_of_copies_that_count_as_new():
    """What the latest-value rule is there for: the same rows, each counted as a user of its own, fool the sequence."""
    rng = np.random.default_rng(6)
    value = rng.random((2, 1000, 600, 1)) < 0.5
    copies = np.repeat(value, 3, axis=3).reshape(2, 1000, 1800)
    found = compared(*(ones(arm, 30) for arm in copies))
    once = compared(*(ones(arm, 10) for arm in value[..., 0]))
    rates = {"copies": ever(p_values(found) < ALPHA), "ours": ever(p_values(once) < ALPHA)}
    told("copies", **rates)
    assert rates["ours"] <= ALPHA < rates["copies"]
