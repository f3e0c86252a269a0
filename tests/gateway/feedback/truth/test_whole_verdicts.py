"""Everything at once: an experiment with two goals and two guardrails on two candidates, judged again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.experiment import Guardrail, Plan, Sums
from gateway.feedback.verdict import judge
from gateway.findings import Word
from tests.gateway.feedback.truth.crowds import compared, looked, p_values
from tests.gateway.feedback.truth.judged import METRICS, evidence, experiment, shares, sums

LOOKS, EVERY = 8, 150
PLAN = Plan(
    primary="liked",
    secondaries=("stars",),
    guardrails=(Guardrail("error_rate", 0.02), Guardrail("latency", 0.1, relative=True)),
    planned_units=1000,
)


def _numbers(values: Any) -> list[Sums]:
    """The sums of one number a unit, look by look."""
    s, ss = (part.reshape(LOOKS, EVERY).sum(axis=1).cumsum() for part in (values, values**2))
    units = EVERY * np.arange(1, LOOKS + 1)
    return [Sums(units=int(n), n=n, s=a, nn=n, ns=a, ss=b) for n, a, b in zip(units, s, ss, strict=True)]


def _booleans(rng: np.random.Generator, rate: float) -> list[Sums]:
    happy = rng.binomial(EVERY, rate, LOOKS).cumsum()
    return [shares(EVERY * (look + 1), int(happy[look])) for look in range(LOOKS)]


@pytest.mark.long
def test_arms_that_are_all_the_same_are_neither_shipped_nor_rolled_back():
    rng, runs, words = np.random.default_rng(90), 120, []
    same = experiment(PLAN, "one", "two")
    for _ in range(runs):
        arms = ("control", "one", "two")
        story = {
            "liked": {arm: _booleans(rng, 0.6) for arm in arms},
            "error_rate": {arm: _booleans(rng, 0.01) for arm in arms},
            "stars": {arm: _numbers(rng.normal(4, 1, LOOKS * EVERY)) for arm in arms},
            "latency": {arm: _numbers(rng.lognormal(6, 0.5, LOOKS * EVERY)) for arm in arms},
        }
        seen: set[Word] = set()
        for look in range(LOOKS):
            now = {name: {arm: column[look] for arm, column in by_arm.items()} for name, by_arm in story.items()}
            seen.add(judge(same, METRICS, evidence(dict.fromkeys(arms, EVERY * (look + 1)), **now)).word)
        words.append(seen)
    rates = {word.value: sum(word in seen for seen in words) / runs for word in Word}
    print(f"\nwhole verdicts, A/A/A: ever {rates}")
    assert rates["ship"] <= 0.05 and rates["roll_back"] <= 0.05 and rates["blocked"] == 0.0


def test_a_verdict_s_figures_are_the_simulations_own():
    """What is simulated by the thousand elsewhere is what `judge` says of the same units, look by look."""
    rng = np.random.default_rng(91)
    n = rng.integers(1, 5, (2, 1, LOOKS * EVERY))
    s = n * rng.normal(4.0, 1.0, n.shape) + np.array([0.0, 0.3]).reshape(2, 1, 1)
    control, arm = (looked(EVERY, n[which], s[which]) for which in (0, 1))
    found = compared(arm, control, bounded=False)
    simulated = p_values(found, planned=PLAN.planned_units)[0]
    watched = experiment(replace(PLAN, secondaries=()))
    for look in range(LOOKS):
        units = EVERY * (look + 1)
        stars = {name: sums(n[which, 0, :units], s[which, 0, :units]) for which, name in enumerate(("control", "new"))}
        told = judge(
            replace(watched, plan=replace(watched.plan, primary="stars")),
            METRICS,
            evidence(dict.fromkeys(stars, units), stars=stars),
        )
        figure = told.figures[0]
        assert figure.p == pytest.approx(simulated[look]) and figure.difference == pytest.approx(found.value[0, look])
