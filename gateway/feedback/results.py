"""What an experiment has shown so far: traffic, rates and differences, by assigned variant and unit.

Analysed by what was assigned, whatever was then served: a variant that fails and falls back must not borrow the other's
success (DESIGN §3.7). The figures are the tallies'; what came in before the question is worked in first. It knows no
SQL and no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from gateway.domain import BASE, Metric, MetricKind, Variant
from gateway.errors import InvalidRequest
from gateway.experiment import Evidence, Experiment, Sums
from gateway.feedback import estimation, figures
from gateway.feedback.figures import Alone, Bench
from gateway.feedback.tallies import Tallies
from gateway.findings import Figure
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
    """One arm. `mean` is a rate if the metric is boolean, over all epochs; `interval` [low, high] holds at every look
    at once, at the plan's alpha. `difference` is the verdict's: made within each epoch, which the two means are not.

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
    """`pinned` requests named their version themselves, or came from testers, and are left out of everything else (more
    than 100,000 are not counted); what `moved` units did in another arm than their first is left out, too. `behind`:
    not all that has come in is counted yet.
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
    bench = Bench(experiment, {metric.name: metric} if metric else {}, evidence)
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
        variants=_arms(bench, metric, traffic, await rows.ttft_p50(database, experiment)),
        moved=evidence.moved,
        behind=behind,
    )


def _sums(evidence: Evidence, metric: str, variant: str) -> Sums:
    """Over all epochs."""
    mine = [sums for (name, _, arm), sums in evidence.sums.items() if (name, arm) == (metric, variant)]
    return estimation.total(mine)


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


def _arms(
    bench: Bench,
    metric: Metric | None,
    traffic: Mapping[str, _Traffic],
    ttft_p50: Mapping[str, float | None],
) -> tuple[VariantResults, ...]:
    """One row per variant, in the experiment's order; differences are to the first."""
    variants = bench.experiment.variants
    weights = sum(variant.weight for variant in variants)
    total = sum(arm.inferences for arm in traffic.values())
    arms = []
    for position, variant in enumerate(variants):
        arm, mine = traffic[variant.name], figures.alone(bench, metric.name, variant.name) if metric else None
        arms.append(
            VariantResults(
                name=variant.name,
                ref=str(variant.ref) if variant.ref else "base",
                planned_share=variant.weight / weights if weights else 0.0,
                share=arm.inferences / total if total else 0.0,
                inferences=arm.inferences,
                units=arm.units,
                served=arm.served,
                feedback=mine.measurements if mine else 0,
                judged_units=mine.units if mine else 0,
                mean=mine.value if mine else None,
                interval=_ends(mine) if mine else None,
                difference=_gap(bench, metric, variant.name) if metric and position else None,
                operations=Operations(
                    arm.errors, arm.disconnected, arm.input_tokens, arm.output_tokens, ttft_p50.get(variant.name)
                ),
            )
        )
    return tuple(arms)


def _gap(bench: Bench, metric: Metric, variant: str) -> Gap | None:
    """The verdict's own figure: within each epoch, the epochs weighted, at the plan's alpha. A bare number while an arm
    has a single unit."""
    figure = figures.compared(bench, metric.name, variant)
    if figure.difference is None:
        mine, control = (figures.alone(bench, metric.name, one) for one in (variant, bench.experiment.control.name))
        if mine is None or control is None:
            return None
        return Gap(mine.value - control.value, None, excludes_zero=False, conclusive=False)
    interval = _ends(figure)
    excludes = interval is not None and not interval[0] <= 0.0 <= interval[1]
    return Gap(figure.difference, interval, excludes, conclusive=excludes and figure.past_burn_in)


def _ends(found: Alone | Figure) -> tuple[float, float] | None:
    return (found.low, found.high) if found.low is not None and found.high is not None else None
