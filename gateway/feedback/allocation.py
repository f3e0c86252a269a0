"""Weights that follow what is known so far: batched Thompson sampling. Pure; who draws hands the dice in.

Opt-in (`Allocation.THOMPSON`). New weights begin a new epoch, and figures are weighted by epoch, so that an arm that
had its luck early is not believed for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gateway.domain import Metric
from gateway.experiment import Evidence, Experiment
from gateway.feedback.figures import Bench, sign

FLOOR = 0.05
"""The least share that any arm keeps: without it the figures of a starved arm would stand still."""

LEAST_UNITS = 100
"""Judged units that every arm needs before weights move at all."""

DRAWS = 10_000


def thompson(
    experiment: Experiment,
    metrics: Mapping[str, Metric],
    evidence: Evidence,
    rng: np.random.Generator,
    *,
    floor: float = FLOOR,
    least_units: int = LEAST_UNITS,
) -> tuple[float, ...] | None:
    """The shares (summing to 1, in the variants' order) with which each arm is the best by its primary metric.

    The posterior of an arm's mean is normal, around its mean over epochs. `floor` goes to each arm (an equal share at
    most), the rest by the chances. None where there is no primary metric, or an arm has too few units: keep what is.
    """
    primary = experiment.plan.primary
    if primary is None:
        return None
    bench = Bench(experiment, metrics, evidence)
    metric = bench.metric(primary)
    names = [variant.name for variant in experiment.variants]
    against = [bench.against_control(metric, name) for name in bench.candidates]
    if min(min(float(one.arm_units), float(one.control_units)) for one in against) < least_units:
        return None
    arms = [bench.arm(metric, name) for name in names]
    epochs = np.sum([arm.units for arm in arms], axis=0) * np.all([arm.units >= 2 for arm in arms], axis=0)
    if not epochs.sum():
        return None
    share = epochs / epochs.sum()
    means = [float((share * arm.mean).sum()) for arm in arms]
    spreads = [float(np.sqrt((share**2 * arm.variance / np.maximum(arm.units, 1)).sum())) for arm in arms]
    draws = sign(metric) * rng.normal(means, spreads, (DRAWS, len(arms)))
    chances = np.bincount(draws.argmax(axis=1), minlength=len(arms)) / DRAWS
    least = min(floor, 1 / len(arms))
    return tuple(float(weight) for weight in least + (1 - least * len(arms)) * chances)
