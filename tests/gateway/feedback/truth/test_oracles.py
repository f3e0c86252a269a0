"""The figures of a verdict beside those of statsmodels and tea-tasting, on the same data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import tea_tasting as tt
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from gateway.experiment import Plan
from gateway.feedback import estimation, sequences
from gateway.feedback.estimation import Contrast
from gateway.feedback.verdict import judge
from tests.gateway.feedback.truth.judged import METRICS, evidence, experiment, sums

pytestmark = pytest.mark.long


def _crowd(units: int = 3000) -> pd.DataFrame:
    """Units of two arms that judge unevenly often now and before."""
    rng = np.random.default_rng(80)
    leaning, arm = rng.normal(4, 1, units), rng.integers(0, 2, units)
    n, m = rng.integers(1, 9, units), rng.integers(1, 9, units)
    s = n * (leaning + 0.2 * arm) + rng.normal(0, 1, units) * np.sqrt(n)
    x = m * leaning + rng.normal(0, 1, units) * np.sqrt(m)
    return pd.DataFrame({"variant": arm, "n": n, "s": s, "m": m, "x": x, "mean": s / n})


def _compared(crowd: pd.DataFrame, *columns: str, steadied: bool = False) -> Contrast:
    arms = []
    for name in (1, 0):
        part = crowd[crowd["variant"] == name]
        values = [1.0 if column == "1" else part[column].to_numpy() for column in columns]
        arms.append(estimation.arm(estimation.stack([sums(*values)])))
    return estimation.contrast(*arms, steadied=steadied)


def test_holm_is_statsmodels_holm():
    p = np.random.default_rng(81).random((6, 7)) ** 3
    for row in p:
        assert sequences.holm(row) == pytest.approx(multipletests(row, method="holm")[1])
    assert sequences.holm(p) == pytest.approx(np.array([sequences.holm(row) for row in p]))


def test_the_diagnostics_are_welch_s_test_and_interval():
    crowd = _crowd(500)
    arms = [crowd.loc[crowd["variant"] == name, "mean"].to_numpy() for name in (0, 1)]
    stars = {name: sums(1.0, values) for name, values in zip(("control", "new"), arms, strict=True)}
    told = judge(
        experiment(Plan(primary="stars")),
        METRICS,
        evidence({n: len(a) for n, a in zip(stars, arms, strict=True)}, stars=stars),
    )
    both = CompareMeans(DescrStatsW(arms[1]), DescrStatsW(arms[0]))
    figure = told.figures[0]
    assert figure.diagnostics is not None
    assert figure.diagnostics.p == pytest.approx(both.ttest_ind(usevar="unequal")[1])
    assert (figure.diagnostics.low, figure.diagnostics.high) == pytest.approx(both.tconfint_diff(usevar="unequal"))


def test_the_ratio_of_sums_is_a_regression_with_errors_clustered_by_unit():
    crowd = _crowd(800)
    ours = _compared(crowd, "n", "s")
    rows = crowd.loc[crowd.index.repeat(crowd["n"])]
    noise = np.random.default_rng(82).normal(0, 1, len(rows))
    value = rows["mean"] + noise - _mean_within(noise, rows.index.to_numpy())
    fitted = sm.OLS(value, sm.add_constant(rows["variant"])).fit(
        cov_type="cluster", cov_kwds={"groups": rows.index.to_numpy(), "use_correction": False}
    )
    assert ours.value == pytest.approx(fitted.params["variant"])
    assert ours.se == pytest.approx(fitted.bse["variant"], rel=0.002), "but for units - 1"


def _mean_within(noise: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Its mean within each unit, so that what is added leaves the unit's sum alone."""
    return pd.Series(noise).groupby(units).transform("mean").to_numpy()


def test_ratios_means_and_the_past_are_tea_tasting_s():
    crowd = _crowd()
    found = tt.Experiment(
        mean=tt.Mean("mean"),
        ratio=tt.RatioOfMeans("s", "n"),
        steadied=tt.RatioOfMeans("s", "n", numer_covariate="x", denom_covariate="m"),
    ).analyze(crowd, control=0)
    for name, ours, tolerance in (
        ("mean", _compared(crowd, "1", "mean"), 1e-9),
        ("ratio", _compared(crowd, "n", "s"), 1e-9),
        ("steadied", _compared(crowd, "n", "s", "m", "x", steadied=True), 0.02),  # its theta is of all units pooled
    ):
        theirs = found[name]
        half = (theirs.effect_size_ci_upper - theirs.effect_size_ci_lower) / 2
        assert float(ours.value) == pytest.approx(theirs.effect_size, rel=tolerance)
        assert float(ours.se) == pytest.approx(half / 1.9608, rel=max(tolerance, 1e-4))


def test_the_sample_ratio_test_is_stricter_than_one_that_may_be_looked_at_once():
    for other in (4900, 4700, 4400):
        crowd = pd.DataFrame({"variant": [0] * 5000 + [1] * other})
        once = tt.Experiment(ratio=tt.SampleRatio()).analyze(crowd, control=0)["ratio"].pvalue
        told = judge(experiment(Plan(primary="liked")), METRICS, evidence({"control": 5000, "new": other}))
        assert told.sample_ratio.p >= once
        assert told.sample_ratio.alarm == (once < 1e-7), "about eight standard errors of ten thousand units"
