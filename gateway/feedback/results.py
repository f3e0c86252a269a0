"""What an experiment has shown so far: traffic, rates and differences, by assigned variant and unit.

Analysed by what was assigned, whatever was then served: a variant that fails and falls back must not borrow the other's
success (DESIGN §3.7). It knows no SQL and no HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain import Metric, MetricKind
from gateway.errors import InvalidRequest
from gateway.experiment import Experiment
from gateway.feedback import statistics
from gateway.feedback.statistics import Difference, Estimate, Interval, UnitMoments
from gateway.store import results as rows
from gateway.store.database import Database

UNSERVED = "none"
"""Under which name a request that nothing answered is counted in `served`."""


@dataclass(frozen=True, slots=True)
class Operations:
    """How a variant behaved, whatever users say: failures, mean tokens per inference, median ms to the first token."""

    errors: int
    disconnected: int
    mean_input_tokens: float | None
    mean_output_tokens: float | None
    ttft_p50_ms: float | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Difference to the first variant, with its confidence sequence. `conclusive`: past the burn-in, and 0 excluded."""

    value: float
    interval: tuple[float, float] | None
    excludes_zero: bool
    conclusive: bool


@dataclass(frozen=True, slots=True)
class VariantResults:
    """One arm. `mean` is a rate if the metric is boolean; `interval` [low, high] holds at every look at once (95 %).

    `units` are the targeting keys that were assigned here, `judged_units` those that said something, `feedback` the
    judgements that count.
    """

    name: str
    ref: str
    planned_share: float
    share: float
    inferences: int
    units: int
    served: dict[str, int]
    feedback: int
    judged_units: int
    mean: float | None
    interval: tuple[float, float] | None
    difference: Gap | None
    operations: Operations


@dataclass(frozen=True, slots=True)
class ExperimentResults:
    """`pinned` requests named their version themselves and are left out of everything else."""

    id: str
    tenant: str
    alias: str
    name: str
    status: str
    metric: str | None
    kind: MetricKind | None
    optimize: str | None
    inferences: int
    pinned: int
    variants: tuple[VariantResults, ...]


async def results(database: Database, experiment: Experiment, metric: Metric | None) -> ExperimentResults:
    """As of now. Without a metric, only traffic and operations. Raises `InvalidRequest` for a metric made of words."""
    if metric is not None and metric.kind not in (MetricKind.BOOLEAN, MetricKind.FLOAT):
        raise InvalidRequest(
            f"A metric of kind {metric.kind} has no rate or mean.",
            remedy="Ask for a metric of kind boolean or float.",
            param="metric",
        )
    traffic = await rows.traffic(database, experiment)
    served = await rows.served(database, experiment)
    judged = await _estimates(database, experiment, metric) if metric else {}
    return ExperimentResults(
        id=experiment.id,
        tenant=experiment.tenant,
        alias=experiment.alias,
        name=experiment.name,
        status=experiment.status,
        metric=metric.name if metric else None,
        kind=metric.kind if metric else None,
        optimize=metric.optimize if metric else None,
        inferences=sum(arm.inferences for arm in traffic.values()),
        pinned=await rows.pinned(database, experiment),
        variants=_arms(experiment, traffic, served, judged),
    )


async def _estimates(database: Database, experiment: Experiment, metric: Metric) -> dict[str, Estimate]:
    bounded = metric.kind is MetricKind.BOOLEAN
    found = {}
    for variant, row in (await rows.moments(database, experiment, metric.name)).items():
        moments = UnitMoments(row.units, row.judgements, row.total, row.var_count, row.var_total, row.covariance)
        estimate = statistics.estimate(moments, bounded=bounded)
        if estimate is not None:
            found[variant] = estimate
    return found


def _arms(
    experiment: Experiment,
    traffic: dict[str, rows.Traffic],
    served: dict[str, dict[str | None, int]],
    judged: dict[str, Estimate],
) -> tuple[VariantResults, ...]:
    """One row per variant, in the experiment's order; differences are to the first."""
    weights = sum(variant.weight for variant in experiment.variants)
    total = sum(arm.inferences for arm in traffic.values())
    reference = judged.get(experiment.variants[0].name)
    arms = []
    for position, variant in enumerate(experiment.variants):
        arm, mine = traffic.get(variant.name, rows.Traffic()), judged.get(variant.name)
        gap = statistics.difference(mine, reference) if position and mine and reference else None
        arms.append(
            VariantResults(
                name=variant.name,
                ref=str(variant.ref) if variant.ref else "base",
                planned_share=variant.weight / weights if weights else 0.0,
                share=arm.inferences / total if total else 0.0,
                inferences=arm.inferences,
                units=arm.units,
                served={name or UNSERVED: n for name, n in served.get(variant.name, {}).items()},
                feedback=mine.judgements if mine else 0,
                judged_units=mine.units if mine else 0,
                mean=mine.value if mine else None,
                interval=_ends(mine.interval) if mine else None,
                difference=_gap(gap),
                operations=Operations(
                    arm.errors, arm.disconnected, arm.input_tokens, arm.output_tokens, arm.ttft_p50_ms
                ),
            )
        )
    return tuple(arms)


def _gap(found: Difference | None) -> Gap | None:
    if found is None:
        return None
    return Gap(
        value=found.value,
        interval=_ends(found.interval),
        excludes_zero=found.interval is not None and found.interval.excludes(0.0),
        conclusive=found.conclusive,
    )


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    return (interval.low, interval.high) if interval else None
