"""The statistics against closed forms and against simulated experiments that somebody keeps looking at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gateway.feedback.sequences import rho_squared
from gateway.feedback.statistics import (
    ALPHA,
    BURN_IN,
    PLANNED_UNITS,
    Estimate,
    UnitMoments,
    difference,
    estimate,
    half_width,
    ratio_se,
)


def test_one_judgement_per_unit_gives_the_textbook_standard_error_of_a_mean():
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = estimate(UnitMoments.of(np.ones(400), values))
    assert found is not None and found.interval is not None
    assert found.value == pytest.approx(values.mean())
    assert found.se == pytest.approx(stats.sem(values))
    assert found.interval.high - found.value == pytest.approx(float(half_width(stats.sem(values), 400)))


def test_the_delta_method_agrees_with_the_bootstrap_over_units():
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 12, 600)
    totals = rng.binomial(counts, rng.beta(2, 3, 600))
    picks = rng.integers(0, 600, (4000, 600))
    bootstrap = totals[picks].sum(axis=1) / counts[picks].sum(axis=1)
    assert ratio_se(UnitMoments.of(counts, totals)) == pytest.approx(bootstrap.std(ddof=1), rel=0.05)


def test_the_half_width_is_the_published_formula():
    n, se, alpha = 250, 0.03, 0.05
    rho2 = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / PLANNED_UNITS
    published = se * n**0.5 * (2 * (n * rho2 + 1) / (n**2 * rho2) * np.log((n * rho2 + 1) ** 0.5 / alpha)) ** 0.5
    assert rho_squared(ALPHA, PLANNED_UNITS) == pytest.approx(rho2)
    assert float(half_width(se, n)) == pytest.approx(published)
    assert float(half_width(se, n)) > stats.norm.ppf(1 - alpha / 2) * se, "watching costs width"


def test_five_successes_out_of_five_are_not_certainty():
    found = estimate(UnitMoments.of(np.ones(5), np.ones(5)), bounded=True)
    assert found is not None and found.interval is not None
    assert found.value == 1.0 and found.interval.high == 1.0 and found.interval.low < 0.6


def test_nobody_asked_is_no_estimate_and_one_unit_is_no_interval():
    assert estimate(UnitMoments.of([], [])) is None
    single = estimate(UnitMoments.of([3], [2]), bounded=True)
    assert single is not None and single.interval is None


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 1)), min_size=2, max_size=40))
def test_a_rate_and_its_interval_stay_in_range(units: list[tuple[int, float]]):
    counts = np.array([n for n, _ in units])
    totals = counts * np.array([p for _, p in units])
    found = estimate(UnitMoments.of(counts, totals), bounded=True)
    assert found is not None and found.interval is not None
    assert -1e-9 <= found.interval.low <= found.value + 1e-9 <= found.interval.high + 2e-9 <= 1 + 3e-9


def test_a_real_difference_is_called_once_past_the_burn_in_and_not_before():
    def arm(units: int, rate: float) -> Estimate:
        wins = round(units * rate)
        found = estimate(UnitMoments.of(np.ones(units), [1.0] * wins + [0.0] * (units - wins)), bounded=True)
        assert found is not None
        return found

    early = difference(arm(BURN_IN - 1, 0.95), arm(BURN_IN - 1, 0.05))
    late = difference(arm(BURN_IN, 0.95), arm(BURN_IN, 0.05))
    assert early.interval is not None and early.interval.excludes(0) and not early.conclusive
    assert late.conclusive and late.value == pytest.approx(0.90)


def _running(values: np.ndarray, looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error of each row's first n values, for each n in `looks`. Shapes: (runs, looks)."""
    n = looks.astype(float)
    total, squares = np.cumsum(values, axis=1)[:, looks - 1], np.cumsum(values**2, axis=1)[:, looks - 1]
    mean = total / n
    return mean, np.sqrt((squares - n * mean**2) / (n - 1) / n)


def _false_wins(a: np.ndarray, b: np.ndarray, *, looks: np.ndarray) -> tuple[float, float]:
    """The share of A/A runs in which (a naive t-test, the confidence sequence) ever excludes 0 at one of the looks."""
    (mean_a, se_a), (mean_b, se_b) = _running(a, looks), _running(b, looks)
    gap, se = np.abs(mean_a - mean_b), np.hypot(se_a, se_b)
    naive = gap > stats.t.ppf(1 - ALPHA / 2, 2 * looks - 2) * se
    sequence = (gap > half_width(se, 2 * looks)) & (looks >= BURN_IN)
    return float(naive.any(axis=1).mean()), float(sequence.any(axis=1).mean())


def test_watching_an_a_a_test_fools_the_t_test_and_not_the_sequence():
    rng = np.random.default_rng(7)
    arms = rng.binomial(1, 0.3, (2, 1000, 2000)).astype(float)
    naive, sequence = _false_wins(arms[0], arms[1], looks=np.arange(10, 2001, 10))
    assert naive > 0.3, naive
    assert sequence <= ALPHA, sequence


def test_ten_judgements_of_one_user_do_not_count_as_ten():
    """Users differ, and each judges ten times: per judgement the sequence is fooled, per user it is not."""
    rng = np.random.default_rng(8)
    leaning = rng.beta(0.5, 0.5, (2, 500, 300))
    judged = rng.binomial(1, np.repeat(leaning, 10, axis=2)).astype(float)
    per_user = judged.reshape(2, 500, 300, 10).mean(axis=3)
    _, counting_judgements = _false_wins(judged[0], judged[1], looks=np.arange(10, 3001, 10))
    _, counting_users = _false_wins(per_user[0], per_user[1], looks=np.arange(10, 301, 10))
    assert counting_judgements > 0.3, counting_judgements
    assert counting_users <= ALPHA, counting_users


def test_the_estimates_shipped_make_the_same_calls_as_the_simulation():
    """`difference` on unit moments, looked at as units arrive, stays quiet in A/A runs with uneven users."""
    rng = np.random.default_rng(9)
    wrong = 0
    for _ in range(120):
        counts = rng.geometric(0.25, (2, 400))
        totals = rng.binomial(counts, rng.beta(1, 1, (2, 400)))
        looks = range(100, 401, 20)
        wrong += any(_called(counts[:, :n], totals[:, :n]) for n in looks)
    assert wrong / 120 <= ALPHA


def _called(counts: np.ndarray, totals: np.ndarray) -> bool:
    arms = [estimate(UnitMoments.of(counts[i], totals[i]), bounded=True) for i in (0, 1)]
    assert arms[0] is not None and arms[1] is not None
    return difference(arms[1], arms[0]).conclusive
