"""Do the arms hear from the same share of their units? And could a lead come from those that are missing? Pure.

An arm that is slow or fails loses the judgements of just those who would have complained, and looks better for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.domain import Metric, MetricKind
from gateway.experiment import Sums
from gateway.feedback import estimation, sequences
from gateway.feedback.estimation import Contrast
from gateway.feedback.figures import Bench, sign
from gateway.findings import FeedbackCoverage, Figure, Status

ALARM = 0.001
"""Below this p-value the primary metric is not to be trusted."""

SUSPECT = 1.0
"""Standard errors between the arms' coverages from which on a lead must also survive the worst about the missing. A
larger one lets more wrong leads pass, a smaller one delays more right ones; measured in docs/statistics.md."""

WORST = 2.0
"""Standard deviations from the control's mean, for metrics that have no worst value."""


def compare(measured: Any, exposed: Any, control_measured: Any, control_exposed: Any) -> Contrast:
    """The difference of the shares of units that are heard from, by the estimator of all other shares. Arrays of shape
    (..., epochs)."""
    return estimation.contrast(_heard(measured, exposed), _heard(control_measured, control_exposed))


def spare(low: Any, shares: Contrast, *, mean: Any, control: Any, worst: Any, best: Any) -> Any:
    """What is left of `low`, the lower end of a lead, if the units that are missing from the arm had said the `worst`,
    or those missing from the control the `best`; as it is where the shares do not differ notably. Arrays of shape
    (...), all with more being better."""
    silent = shares.control - shares.arm
    with np.errstate(divide="ignore", invalid="ignore"):
        ours = silent / shares.control * np.maximum(mean - worst, 0.0)
        theirs = -silent / shares.arm * np.maximum(best - control, 0.0)
    suspect = np.abs(silent) > SUSPECT * shares.se
    return low - np.where(suspect, np.where(silent > 0, ours, theirs), 0.0)


def judge(bench: Bench, primaries: list[Figure]) -> FeedbackCoverage | None:
    """Of the primary metric, whose figures are given. None where there is none, or silence counts as 0 (a count)."""
    primary = bench.experiment.plan.primary
    metric = bench.metric(primary) if primary is not None else None
    if metric is None or metric.kind is MetricKind.COUNT:
        return None
    contrasts = {figure.variant: _contrast(bench, metric, figure.variant) for figure in primaries}
    p = min((_p(bench, one) for one in contrasts.values()), default=1.0) * max(1, len(contrasts))
    names = [variant.name for variant in bench.experiment.variants]
    shares = {name: _share(sum(_measured(bench, metric, name)), sum(bench.exposed(name))) for name in names}
    return FeedbackCoverage(
        metric=metric.name,
        shares=shares,
        p=min(1.0, p),
        alarm=p < ALARM,
        explains=tuple(f.variant for f in primaries if _explained(bench, metric, f, contrasts[f.variant])),
    )


def _explained(bench: Bench, metric: Metric, figure: Figure, shares: Contrast) -> bool:
    if figure.status is not Status.BETTER or figure.value is None or figure.control is None:
        return False
    up = sign(figure)
    mean, control, low = up * figure.value, up * figure.control, up * ((figure.low if up > 0 else figure.high) or 0.0)
    if figure.share:
        worst, best = (0.0, 1.0) if up > 0 else (-1.0, 0.0)
    else:
        arm = bench.arm(metric, bench.experiment.control.name)
        spread = WORST * float(np.sqrt(np.average(arm.variance, weights=arm.units)))
        worst, best = control - spread, control + spread
    return bool(spare(low, shares, mean=mean, control=control, worst=worst, best=best) <= 0)


def _contrast(bench: Bench, metric: Metric, variant: str) -> Contrast:
    control = bench.experiment.control.name
    return compare(
        np.array(_measured(bench, metric, variant)),
        np.array(bench.exposed(variant)),
        np.array(_measured(bench, metric, control)),
        np.array(bench.exposed(control)),
    )


def _p(bench: Bench, found: Contrast) -> float:
    plan = bench.experiment.plan
    if min(found.arm_units, found.control_units) < plan.burn_in:
        return 1.0
    return float(sequences.p_value(found.value, found.se, found.units, tuned=ALARM, planned=plan.planned_units))


def _measured(bench: Bench, metric: Metric, variant: str) -> list[int]:
    sums = bench.evidence.sums
    found = [sums[key].units if (key := (metric.name, epoch, variant)) in sums else 0 for epoch in bench.epochs]
    return [min(units, exposed) for units, exposed in zip(found, bench.exposed(variant), strict=True)]


def _heard(measured: Any, exposed: Any) -> estimation.Arm:
    return estimation.arm(
        Sums(units=exposed, n=exposed, s=measured, nn=exposed, ns=measured, ss=measured), bounded=True
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
