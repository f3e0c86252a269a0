"""When an adaptive experiment gets new weights, and which. Pure but for the dice, whose seed goes into the audit row.

A batch is a quarter more units than there were at the last draw, so the number of epochs grows with the logarithm of
the traffic: some 40 from a hundred units to a million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.evaluation.judging import Judged
from gateway.experiment import Allocation, Experiment, Stage
from gateway.feedback.allocation import thompson
from gateway.findings import Word

BATCH = 1.25
"""Times the units at the last draw."""
LEAST_MOVE = 0.01
"""The share of the users that must change arms for new weights to be worth an epoch."""


@dataclass(frozen=True, slots=True)
class Draw:
    """`weights` are shares in the variants' order; None: what is, stays. `units` had come by then."""

    units: int
    weights: tuple[float, ...] | None
    why: str
    figures: Mapping[str, Any]


def draw(experiment: Experiment, judged: Judged, weighed: int, seed: int) -> Draw | None:
    """The weights that are due, or None. `weighed` is the number of units at the last draw (0: there was none)."""
    units = sum(judged.verdict.exposed.values())
    adaptive = experiment.plan.allocation is Allocation.THOMPSON and experiment.stage is Stage.EXPERIMENT
    if not adaptive or units < weighed * BATCH or judged.verdict.word is Word.BLOCKED:
        return None
    found = thompson(experiment, judged.metrics, judged.evidence, np.random.default_rng(seed))
    if found is None:
        return None
    now = np.array([variant.weight for variant in experiment.variants])
    moved = float(np.abs(np.array(found) - now / now.sum()).sum() / 2)
    figures = {"seed": seed, "units": units, "weights": list(found), "moved": moved}
    why = f"drawn by Thompson sampling from {units} users with the seed {seed}"
    return Draw(units, found if moved >= LEAST_MOVE else None, why, figures)
