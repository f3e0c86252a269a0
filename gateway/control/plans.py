"""What an experiment may be planned as: whether its arms can be compared, its numbers make sense and its metrics exist.
It asks nobody."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gateway.control.aliases import alone
from gateway.control.names import check_name, check_shadow
from gateway.domain import Alias, Metric, MetricKind, Shadow, Unit, Variant
from gateway.errors import Conflict, InvalidRequest
from gateway.experiment import Allocation, By, Plan, Stage
from gateway.store.automatic import NAMES

NUMBERS = frozenset((MetricKind.BOOLEAN, MetricKind.FLOAT, MetricKind.COUNT, MetricKind.RATIO))
"""What has a rate or a mean to compare variants by."""

SMALLEST_COVERAGE = 0.001
USUAL_CANARY = 0.05
LARGEST_CANARY = 0.2
"""1 to 5 % are usual; an alias with few users needs more of them to see anything."""

MOST_METRICS = 20
MOST_DAYS = 90


def check_plan(plan: Plan, metrics: Mapping[str, Metric]) -> None:
    """Raises `InvalidRequest` unless a verdict could come of it. `metrics` are the tenant's own, by name."""
    goals = [*([plan.primary] if plan.primary else []), *plan.secondaries]
    guarded = [guardrail.metric for guardrail in plan.guardrails]
    for name, param in [(plan.primary, "metric"), *((name, "plan") for name in (*plan.secondaries, *guarded))]:
        if name is not None:
            _check_metric(name, metrics, param)
    _check_once("goals", goals)
    _check_once("guardrails", guarded)
    for guardrail in plan.guardrails:
        if not (math.isfinite(guardrail.margin) and guardrail.margin >= 0):
            raise _wrong(f"The margin of `{guardrail.metric}` is no number from 0 up.")
    if not 0 < plan.alpha < 0.5:
        raise _wrong("alpha is a probability above 0 and below 0.5.", "0.05 is usual.")
    if plan.planned_units < 2 or plan.burn_in < 2 or plan.canary_units < 1:
        raise _wrong("planned_units and burn_in are 2 or more, canary_units 1 or more.")
    if not 0 <= plan.cuped_days <= MOST_DAYS:
        raise _wrong(f"cuped_days is a number of days from 0 (none) to {MOST_DAYS}.")
    needs = "ship by the rule" if plan.ship is By.RULE else "allocate by Thompson sampling"
    if plan.primary is None and (plan.ship is By.RULE or plan.allocation is Allocation.THOMPSON):
        raise _wrong(f"Without a primary metric nothing can {needs}.", "Name a primary metric.")


def check_coverage(coverage: float, canary_coverage: float) -> None:
    """Raises `InvalidRequest` unless both are shares, and the canary is the smaller one."""
    if not SMALLEST_COVERAGE <= coverage <= 1:  # NaN is not
        raise InvalidRequest(
            f"A coverage is a share from {SMALLEST_COVERAGE} to 1.", remedy="0.5 is half.", param="coverage"
        )
    if not SMALLEST_COVERAGE <= canary_coverage <= LARGEST_CANARY:
        raise InvalidRequest(
            f"A canary covers {SMALLEST_COVERAGE} to {LARGEST_CANARY} of the units; 0.01 to 0.05 is usual.",
            remedy="To begin with more, start at the stage experiment with that coverage.",
            param="canary_coverage",
        )
    if canary_coverage > coverage:
        raise InvalidRequest(
            "The canary covers more than the experiment.", remedy="Give the smaller share.", param="canary_coverage"
        )


def check_ratio(metric: Metric, metrics: Mapping[str, Metric]) -> None:
    """Raises `InvalidRequest` unless a ratio divides two metrics with numbers, and nothing else divides any."""
    parts = (("numerator", metric.numerator), ("denominator", metric.denominator))
    for param, name in parts:
        if metric.kind is not MetricKind.RATIO:
            if name is not None:
                raise InvalidRequest(
                    f"A metric of kind {metric.kind} has no {param}.", remedy="Leave it out.", param=param
                )
            continue
        if name is None:
            raise InvalidRequest("A ratio divides one metric by another.", remedy=f"Name its {param}.", param=param)
        _check_metric(name, metrics, param)
        if name in metrics and metrics[name].kind is MetricKind.RATIO:
            raise InvalidRequest("A ratio of ratios has no sums.", remedy=f"Name another {param}.", param=param)


def check_start(stage: Stage, layer: str | None, unit: Unit) -> None:
    """Raises `InvalidRequest` for an end to start with, and for a layer of inferences: each belongs to one alias, so
    none could be in two experiments."""
    if stage.ended:
        raise InvalidRequest(
            "An experiment does not begin with its end.",
            remedy="Start at shadow, canary or experiment.",
            param="stage",
        )
    if layer is not None:
        check_name("a layer", layer)
    if layer is not None and unit is Unit.INFERENCE:
        raise InvalidRequest(
            "A layer keeps users or episodes apart, and an inference is only ever in one experiment.",
            remedy="Leave the layer out.",
            param="layer",
        )


def plan_of(plan: Plan | None, metric: str | None) -> Plan:
    """The plan, with `metric` as its primary one. Raises `InvalidRequest` if it has another."""
    if plan is None or metric is None:
        return plan or Plan(primary=metric)
    if plan.primary not in (None, metric):
        raise InvalidRequest(
            "`metric` and the plan's primary metric are two.", remedy="Name one of them.", param="metric"
        )
    return replace(plan, primary=metric)


def arms_of(
    alias: Alias, variants: Sequence[Variant] | None, candidates: Sequence[Variant] | None
) -> tuple[Variant, ...]:
    """Control and candidates, as `Experiments.start` was given them. Raises `InvalidRequest` for a mixture."""
    if candidates is None:
        return tuple(alias.variants if variants is None else variants)
    if variants is not None:
        raise InvalidRequest(
            "Give variants, the first of them as the control, or candidates alone.", param="candidates"
        )
    if len(alias.variants) != 1:
        raise InvalidRequest(
            f"The alias `{alias.name}` has {len(alias.variants)} variants, so candidates alone have no control.",
            remedy="Give variants, the first of them as the control.",
            param="candidates",
        )
    return (alone(alias.variants[0]), *candidates)


def check_arms(alias: Alias, arms: Sequence[Variant], stage: Stage, shadow_share: float) -> None:
    """Raises `InvalidRequest` unless these can be compared, and mirrored if that is the stage; `Conflict` where
    something is mirrored already."""
    if sum(arm.weight > 0 for arm in arms) < 2 or not arms[0].weight > 0:
        raise InvalidRequest(
            "An experiment compares at least two variants with traffic, the first of them as the control.",
            remedy="Give variants, or set the alias first.",
            param="variants",
        )
    if stage is not Stage.SHADOW:
        return
    if len(arms) != 2:
        raise InvalidRequest(
            "A shadow is one candidate.", remedy="Give one candidate, or start at the canary.", param="stage"
        )
    check_shadow(alias.tenant, Shadow(arms[1].ref, shadow_share))
    if alias.shadow is not None:
        raise Conflict(
            f"The alias `{alias.name}` mirrors requests already.", remedy="Remove that shadow first.", param="stage"
        )


def _check_metric(name: str, metrics: Mapping[str, Metric], param: str) -> None:
    metric = metrics.get(name)
    if metric is None and name in NAMES:
        return
    if metric is None:
        raise InvalidRequest(
            f"The tenant has no metric `{name[:80]}`.",
            remedy=f"Declare it first, or use an automatic one: {', '.join(sorted(NAMES))}.",
            param=param,
            code="metric_not_found",
        )
    if metric.kind not in NUMBERS:
        raise InvalidRequest(
            f"A metric of kind {metric.kind} has no rate or mean to compare variants by.",
            remedy="Name a metric of kind boolean, float, count or ratio.",
            param=param,
        )


def _check_once(what: str, names: Iterable[str]) -> None:
    listed = list(names)
    if len(set(listed)) != len(listed):
        raise _wrong(f"A metric is among the {what} twice.", "Name each once.")
    if len(listed) > MOST_METRICS:
        raise _wrong(f"There are more than {MOST_METRICS} {what}.", "The more there are, the less each can show.")


def _wrong(sentence: str, remedy: str | None = None) -> InvalidRequest:
    return InvalidRequest(sentence, remedy=remedy, param="plan")
