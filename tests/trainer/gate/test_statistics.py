"""What a difference is worth: against values that scipy computes, against tables, and by the rate of its errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trainer.gate import LEAST_UNITS
from trainer.gate.statistics import (
    Difference,
    clusters,
    mcnemar,
    mean,
    paired_bootstrap,
    ratio,
    rows_needed,
)


def apart(difference: np.ndarray, *, confidence: float = 0.95, units: list[str | None] | None = None) -> Difference:
    of = clusters(units or [None] * len(difference))
    return paired_bootstrap(mean(difference), mean(np.zeros_like(difference)), of, confidence=confidence, seed=0)


def test_the_interval_is_scipys_widened_for_few_units():
    values = np.random.default_rng(3).normal(0.2, 1.0, 60)
    found = apart(values, confidence=0.95)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=0.90, method="percentile", n_resamples=20_000, rng=np.random.default_rng(5)
    ).confidence_interval
    wider = math.sqrt(60 / 59) * stats.t.isf(0.05, 59) / stats.norm.isf(0.05)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(found.value + wider * (theirs.low - found.value), abs=0.02)
    assert found.high == pytest.approx(found.value + wider * (theirs.high - found.value), abs=0.02)
    assert found.se == pytest.approx(values.std() / math.sqrt(60), rel=0.05)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(1).normal(size=30)
    assert apart(values) == apart(values)


def test_ten_rows_of_one_user_are_no_ten_witnesses():
    by_user = np.random.default_rng(2).normal(0.1, 1.0, 40)
    values, units = np.repeat(by_user, 10), [f"user-{n}" for n in range(40) for _ in range(10)]
    assert apart(values, units=list(units)).se == pytest.approx(apart(by_user).se, rel=0.1)
    assert apart(values).se < 0.4 * apart(by_user).se
    assert (apart(values, units=list(units)).units, apart(values).units) == (40, 400)


def test_a_row_without_a_user_is_a_unit_of_its_own():
    assert clusters(["a", None, "a", None]).tolist() == [0, 1, 0, 2]


def test_a_loss_counts_tokens_and_not_rows_and_lower_is_better():
    nats, tokens = np.array([10.0, 2.0]), np.array([10.0, 1.0])
    assert ratio(nats, tokens)(np.ones((1, 2)))[0] == pytest.approx(12 / 11)
    found = paired_bootstrap(
        ratio(nats, tokens), ratio(nats * 2, tokens), clusters([None] * 2), confidence=0.9, seed=0, up=False
    )
    assert found.value == pytest.approx(12 / 11)


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    # Binomial tables: P(X >= wins), X ~ B(wins + losses, 1/2).
    [(0, 0, 1.0), (5, 0, 1 / 32), (5, 1, 7 / 64), (10, 2, 79 / 4096), (1, 1, 0.75), (0, 4, 1.0)],
)
def test_mcnemars_test_is_the_binomials_tail(wins: int, losses: int, p: float):
    candidate = np.array([1.0] * wins + [0.0] * losses + [1.0] * 7)
    other = np.array([0.0] * wins + [1.0] * losses + [1.0] * 7)
    found = mcnemar(candidate, other, clusters([None] * len(candidate)))
    assert (found.wins, found.losses) == (wins, losses)
    assert found.p == pytest.approx(p)


def test_mcnemars_test_counts_a_user_once():
    candidate, other = np.array([1.0, 1.0, 1.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0])
    found = mcnemar(candidate, other, clusters(["ann", "ann", "ann", "bob"]))
    assert (found.wins, found.losses) == (1, 1)


def test_how_many_rows_would_show_it_grows_with_the_square_of_what_is_missing():
    found = Difference(value=0.02, low=-0.02, high=0.06, se=0.0243, rows=100, units=100)
    assert rows_needed(found, 0.0, confidence=0.95) == math.ceil(100 * (stats.norm.isf(0.05) * 0.0243 / 0.02) ** 2)
    assert rows_needed(found, 0.02, confidence=0.95) is None
    assert rows_needed(Difference(0.5, 0.1, 0.9, 0.01, 30, 30), 0.0, confidence=0.95) == 31


def test_a_single_user_bounds_nothing():
    assert apart(np.array([0.5, 0.7]), units=["ann", "ann"]).low == -math.inf


@pytest.mark.long
@pytest.mark.parametrize("rows", [LEAST_UNITS, 60])
def test_no_difference_is_taken_for_one_about_as_often_as_the_confidence_allows(rows: int):
    """300 comparisons of equals, right on 70 % of the rows and unlike on 30 %; of 5 % plus three standard errors."""
    random, wrong = np.random.default_rng(7), {"interval": 0, "both": 0}
    for _ in range(300):
        difference = random.choice([-1.0, 0.0, 1.0], p=[0.15, 0.7, 0.15], size=rows)
        of = clusters([None] * rows)
        shown = apart(difference).low > 0
        wrong["interval"] += shown
        wrong["both"] += shown and mcnemar(difference, np.zeros(rows), of).p <= 0.05
    assert wrong["interval"] / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    assert wrong["both"] <= wrong["interval"]
