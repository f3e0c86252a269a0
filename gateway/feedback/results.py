"""What an experiment has shown so far: traffic, rates and differences, by assigned variant and unit.

Analysed by what was assigned, whatever was then served: a variant that fails and falls back must not borrow the other's
success (DESIGN §3.7). The figures are the tallies'; what came in before the question is worked in first. It knows no
SQL and no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial

from gateway.domain import BASE, Metric, MetricKind, Variant
from gateway.errors import InvalidRequest
from gateway.experiment import Evidence, Experiment, Sums
from gateway.feedback import statistics
from gateway.feedback.statistics import Difference, Estimate, Interval, UnitMoments
from gateway.feedback.tallies import Tallies
from gateway.store import results as rows
from gateway.store import totals
from gateway.store.automatic import automatic
from gateway.store.database import Database

UNSERVED = "none"
"""Under which name a request that nothing answered is counted in `served`."""

_NUMBERS = (MetricKind.BOOLEAN, MetricKind.FLOAT, MetricKind.COUNT, MetricKind.RATIO)


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

    `units` are those that came here first, `inferences` what they asked while they were here, `judged_units` those that
    said something, `feedback` the judgements that count.
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
    """`pinned` requests named their version themselves and are left out of everything else; what `moved` units did in
    another arm than their first is left out, too. `behind`: not all that has come in is counted yet.
    """

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
    moved: int = 0
    behind: bool = False


@dataclass(frozen=True, slots=True)
class _Traffic:
    """What one variant's units asked. Tokens are means per inference."""

    inferences: int
    units: int
    errors: int
    disconnected: int
    input_tokens: float | None
    output_tokens: float | None
    served: dict[str, int]


async def results(database: Database, experiment: Experiment, metric: Metric | None) -> ExperimentResults:
    """As of now. Without a metric, only traffic and operations. Raises `InvalidRequest` for a metric made of words."""
    if metric is not None and metric.kind not in _NUMBERS:
        raise InvalidRequest(
            f"A metric of kind {metric.kind} has no rate or mean.",
            remedy="Ask for a metric of kind boolean, float, count or ratio.",
            param="metric",
        )
    behind = not await Tallies(database).catch_up_with(experiment)
    wanted = {**automatic(experiment.tenant), **({metric.name: metric} if metric else {})}
    evidence = await totals.evidence(database, experiment, wanted, prefix="#")
    traffic = {variant.name: _traffic(evidence, variant) for variant in experiment.variants}
    judged = _estimates(evidence, experiment, metric) if metric else {}
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
        variants=_arms(experiment, traffic, await rows.ttft_p50(database, experiment), judged),
        moved=evidence.moved,
        behind=behind,
    )


def _sums(evidence: Evidence, metric: str, variant: str) -> Sums:
    """Over all epochs."""
    mine = [sums for (name, _, arm), sums in evidence.sums.items() if (name, arm) == (metric, variant)]
    return Sums(*(sum(getattr(one, field.name) for one in mine) for field in fields(Sums)))


def _traffic(evidence: Evidence, variant: Variant) -> _Traffic:
    sums = partial(_sums, evidence, variant=variant.name)
    names = {name for name, *_ in evidence.sums}

    def own(name: str) -> Sums:
        """An automatic metric; it has another name where the tenant has a metric of this one."""
        return sums(f"#{name}" if f"#{name}" in names else name)

    asked, read, written = own("error_rate"), sums("#input_tokens"), own("output_tokens")
    other = {name.removeprefix("#served "): int(sums(name).n) for name in names if name.startswith("#served ")}
    rest = int(asked.n) - sum(other.values())
    served = {str(variant.ref) if variant.ref else BASE: rest, **{name or UNSERVED: n for name, n in other.items()}}
    return _Traffic(
        inferences=int(asked.n),
        units=sum(units for (_, arm), units in evidence.exposed.items() if arm == variant.name),
        errors=int(asked.s),
        disconnected=int(sums("#disconnected").n),
        input_tokens=read.s / read.n if read.n else None,
        output_tokens=written.s / written.n if written.n else None,
        served={name: n for name, n in served.items() if n},
    )


def _estimates(evidence: Evidence, experiment: Experiment, metric: Metric) -> dict[str, Estimate]:
    bounded = metric.kind is MetricKind.BOOLEAN
    found = {}
    for variant in experiment.variants:
        estimate = statistics.estimate(_moments(_sums(evidence, metric.name, variant.name)), bounded=bounded)
        if estimate is not None:
            found[variant.name] = estimate
    return found


def _moments(sums: Sums) -> UnitMoments:
    """Sample variances from sums of products."""
    n, degrees = max(sums.units, 1), max(sums.units - 1, 1)
    return UnitMoments(
        sums.units,
        int(sums.n),
        sums.s,
        var_count=max(sums.nn - sums.n**2 / n, 0.0) / degrees,
        var_total=max(sums.ss - sums.s**2 / n, 0.0) / degrees,
        covariance=(sums.ns - sums.n * sums.s / n) / degrees,
    )


def _arms(
    experiment: Experiment,
    traffic: Mapping[str, _Traffic],
    ttft_p50: Mapping[str, float | None],
    judged: Mapping[str, Estimate],
) -> tuple[VariantResults, ...]:
    """One row per variant, in the experiment's order; differences are to the first."""
    weights = sum(variant.weight for variant in experiment.variants)
    total = sum(arm.inferences for arm in traffic.values())
    reference = judged.get(experiment.variants[0].name)
    arms = []
    for position, variant in enumerate(experiment.variants):
        arm, mine = traffic[variant.name], judged.get(variant.name)
        gap = statistics.difference(mine, reference) if position and mine and reference else None
        arms.append(
            VariantResults(
                name=variant.name,
                ref=str(variant.ref) if variant.ref else "base",
                planned_share=variant.weight / weights if weights else 0.0,
                share=arm.inferences / total if total else 0.0,
                inferences=arm.inferences,
                units=arm.units,
                served=arm.served,
                feedback=mine.judgements if mine else 0,
                judged_units=mine.units if mine else 0,
                mean=mine.value if mine else None,
                interval=_ends(mine.interval) if mine else None,
                difference=_gap(gap),
                operations=Operations(
                    arm.errors, arm.disconnected, arm.input_tokens, arm.output_tokens, ttft_p50.get(variant.name)
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
