"""Thompson's batches: drawn from a seed that is told, only where the plan asks for it, and ever more rarely."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.domain import Metric, MetricKind
from gateway.evaluation.judging import Judged
from gateway.evaluation.weights import BATCH, draw
from gateway.experiment import Allocation, Evidence, Experiment, Stage, Sums
from gateway.findings import Word
from tests.gateway.evaluation.verdicts import experiment, verdict

HELPFUL = Metric("acme", "helpful", MetricKind.BOOLEAN)


def answers(units: int, good: int) -> Sums:
    """One answer of each unit."""
    return Sums(units=units, n=units, s=good, nn=units, ns=good, ss=good)


def judged(base: int, tuned: int, *, units: int = 1000, word: Word = Word.KEEP_RUNNING) -> Judged:
    """So many good answers of `units` in each arm."""
    exposed = {(0, "base"): units, (0, "tuned"): units}
    sums = {("helpful", 0, "base"): answers(units, base), ("helpful", 0, "tuned"): answers(units, tuned)}
    found = replace(verdict(word), exposed={"base": units, "tuned": units})
    return Judged(found, Evidence(exposed=exposed, sums=sums), {"helpful": HELPFUL})


def adaptive(**more: Any) -> Experiment:
    return experiment(allocation=Allocation.THOMPSON, **more)


def test_the_better_arm_gets_more_and_no_arm_starves() -> None:
    drawn = draw(adaptive(), judged(300, 420), weighed=0, seed=7)
    assert drawn is not None and drawn.weights is not None
    assert sum(drawn.weights) == pytest.approx(1) and drawn.weights[0] == pytest.approx(0.05, abs=0.001)


def test_the_seed_in_the_audit_row_gives_the_same_weights_again() -> None:
    once, again = (draw(adaptive(), judged(300, 305), weighed=0, seed=7) for _ in range(2))
    other = draw(adaptive(), judged(300, 305), weighed=0, seed=8)
    assert once == again and once is not None and other is not None
    assert once.figures["seed"] == 7 and once.figures["weights"] == list(once.weights or ())
    assert once.weights != other.weights


def test_a_draw_waits_for_a_quarter_more_users_than_at_the_last_one() -> None:
    assert draw(adaptive(), judged(300, 420), weighed=1601, seed=7) is None
    assert draw(adaptive(), judged(300, 420), weighed=1600, seed=7) is not None
    epochs, units = 0, 200.0
    while units < 1_000_000:
        epochs, units = epochs + 1, units * BATCH
    assert epochs < 50


@pytest.mark.parametrize(
    "one", [experiment(), adaptive(stage=Stage.CANARY)], ids=["fixed weights", "a canary's coverage is what matters"]
)
def test_other_experiments_keep_their_weights(one: Experiment) -> None:
    assert draw(one, judged(300, 420), weighed=0, seed=7) is None


def test_figures_that_cannot_be_trusted_move_nobody() -> None:
    assert draw(adaptive(), judged(300, 420, word=Word.BLOCKED), weighed=0, seed=7) is None
    assert draw(adaptive(), judged(30, 42, units=90), weighed=0, seed=7) is None


def test_weights_that_would_hardly_move_anybody_begin_no_epoch() -> None:
    one = adaptive()
    arms = tuple(replace(arm, weight=weight) for arm, weight in zip(one.variants, (0.05, 0.95), strict=True))
    drawn = draw(replace(one, variants=arms), judged(300, 420), weighed=0, seed=7)
    assert drawn is not None and drawn.weights is None and drawn.units == 2000
