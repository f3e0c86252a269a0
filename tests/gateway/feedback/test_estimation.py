"""The arithmetic of a verdict against closed forms and the bootstrap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gateway.domain import Metric, MetricKind
from gateway.experiment import Plan, Sums
from gateway.feedback import estimation, sequences
from gateway.feedback.figures import Bench, alone, compared
from tests.gateway.feedback.truth.judged import METRICS, evidence, experiment, interval, shares, sums

BENCH = Bench(experiment(Plan(planned_units=500)), METRICS, evidence({}))


def _alone(found: Sums, metric: str = "liked") -> tuple[float, float | None, float | None] | None:
    bench = replace(BENCH, evidence=evidence({"new": found.units}, **{metric: {"new": found}}))
    told = alone(bench, metric, "new")
    return told and (told.value, told.low, told.high)


def test_one_judgement_per_unit_gives_the_textbook_standard_error_of_a_mean():
    values = np.random.default_rng(1).normal(3, 2, 400)
    arm = estimation.arm(estimation.stack([sums(1.0, values)]))
    assert arm.mean[0] == pytest.approx(values.mean())
    assert np.sqrt(arm.variance[0] / 400) == pytest.approx(stats.sem(values))
    assert _alone(sums(1.0, values), "stars") == pytest.approx(interval(np.ones(400), values, bounded=False))


def test_the_delta_method_agrees_with_the_bootstrap_over_units():
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 12, 600)
    totals = rng.binomial(counts, rng.beta(2, 3, 600))
    picks = rng.integers(0, 600, (4000, 600))
    bootstrap = totals[picks].sum(axis=1) / counts[picks].sum(axis=1)
    arm = estimation.arm(estimation.stack([sums(counts, totals)]))
    assert np.sqrt(arm.variance[0] / 600) == pytest.approx(bootstrap.std(ddof=1), rel=0.05)


def test_the_half_width_is_the_published_formula_and_watching_costs_width():
    n, se, alpha, planned = 250, 0.03, 0.05, 500
    rho2 = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / planned
    published = se * n**0.5 * (2 * (n * rho2 + 1) / (n**2 * rho2) * np.log((n * rho2 + 1) ** 0.5 / alpha)) ** 0.5
    width = float(sequences.half_width(se, n, alpha=alpha, planned=planned))
    assert width == pytest.approx(published)
    assert width > stats.norm.ppf(1 - alpha / 2) * se
    at = [
        float(sequences.half_width(1 / np.sqrt(n), n, alpha=alpha, planned=planned)) * np.sqrt(n)
        for n in (50, 500, 5000)
    ]
    assert at[1] < min(at[0], at[2]), "tightest where it was planned"


@given(st.floats(-1, 1), st.floats(0.01, 1), st.integers(2, 10**6), st.floats(0.001, 0.2))
def test_a_p_value_is_below_alpha_just_where_the_interval_excludes_zero(value: float, se: float, n: int, alpha: float):
    at = {"planned": 500}
    both, one = sequences.half_width(se, n, alpha=alpha, **at), sequences.one_sided_width(se, n, alpha=alpha, **at)
    if abs(abs(value) - both) > 1e-9:
        assert (sequences.p_value(value, se, n, tuned=alpha, **at) < alpha) == (abs(value) > both)
    if abs(value - one) > 1e-9:
        assert (sequences.one_sided_p(value, se, n, tuned=alpha, **at) < alpha) == (value > one)


def test_five_successes_out_of_five_are_not_certainty():
    told = _alone(shares(5, 5))
    assert told is not None and told[0] == told[2] == 1.0
    assert told[1] is not None and told[1] < 0.6


def test_nobody_asked_is_no_estimate_and_one_unit_is_no_interval():
    assert _alone(Sums()) is None
    assert _alone(sums(3.0, [2.0])) == (pytest.approx(2 / 3), None, None)


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 1)), min_size=2, max_size=40))
def test_a_rate_and_its_interval_stay_in_range(units: list[tuple[int, float]]):
    counts = np.array([n for n, _ in units])
    told = _alone(sums(counts, counts * np.array([share for _, share in units])))
    assert told is not None and told[1] is not None and told[2] is not None
    assert -1e-9 <= told[1] <= told[0] + 1e-9 <= told[2] + 2e-9 <= 1 + 3e-9


def test_a_real_difference_is_called_once_past_the_burn_in_and_not_before():
    def figure(units: int):
        liked = {"control": shares(units, round(units * 0.05)), "new": shares(units, round(units * 0.95))}
        return compared(replace(BENCH, evidence=evidence(dict.fromkeys(liked, units), liked=liked)), "liked", "new")

    early, late = figure(99), figure(100)
    assert early.low is not None and early.low > 0 and (early.status, early.p) == ("unclear", None)
    assert late.status == "better" and late.difference == pytest.approx(0.90)


def test_one_epoch_is_no_special_case_and_an_epoch_that_an_arm_missed_says_nothing():
    rng = np.random.default_rng(3)
    arms = [estimation.stack([sums(1.0, rng.normal(mean, 1, 50)), Sums()]) for mean in (1, 0)]
    both = estimation.contrast(*map(estimation.arm, arms))
    first = estimation.contrast(*(estimation.arm(estimation.stack([_first(one)])) for one in arms))
    assert both.value == pytest.approx(first.value)
    missed = estimation.contrast(estimation.arm(arms[0]), estimation.arm(estimation.stack([Sums(), _first(arms[1])])))
    assert missed.units == 0


def test_an_arm_in_a_small_epoch_is_not_sure_of_itself_by_luck():
    """Three units that happen to agree have the variance of their arm, not none."""
    wide = sums(1.0, np.random.default_rng(4).normal(0, 1, 500))
    arm = estimation.arm(estimation.stack([wide, sums(1.0, [1.0, 1.0, 1.0])]))
    assert arm.variance[1] > 0.8 * arm.variance[0]


def test_a_metric_is_a_share_by_its_kind_or_its_unit():
    bench = replace(BENCH, metrics={"edits": Metric("acme", "edits", MetricKind.FLOAT, "min", unit="share")})
    same = {"control": shares(200, 0), "new": shares(200, 0)}
    figure = compared(replace(bench, evidence=evidence(dict.fromkeys(same, 200), edits=same)), "edits", "new")
    assert figure.share and figure.low is not None and figure.low < 0, "no failure among two hundred is not certainty"


def _first(one: Sums) -> Sums:
    return Sums(*(np.atleast_1d(getattr(one, name))[0] for name in Sums.__slots__))
