"""One metric of one candidate against the control: the figure, and the status that may be given to it. Pure.

It knows the plan and the metrics' directions; what the figures of all metrics come to is `verdict.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gateway.domain import Metric, MetricKind
from gateway.experiment import Allocation, Evidence, Experiment, Guardrail, Sums
from gateway.feedback import estimation, sequences
from gateway.feedback.estimation import Arm, Contrast
from gateway.findings import Diagnostics, Figure, Role, Segment, Status


@dataclass(frozen=True)
class Bench:
    """All that a figure is made from: the experiment, its metrics, and the evidence of all or of a part."""

    experiment: Experiment
    metrics: Mapping[str, Metric]
    evidence: Evidence
    _arms: dict[tuple[str, str], Arm] = field(init=False, default_factory=dict, repr=False, compare=False)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The names of the variants after the first."""
        return tuple(variant.name for variant in self.experiment.variants[1:])

    @cached_property
    def epochs(self) -> range:
        """Positions; also those of epochs that only the evidence knows."""
        seen = [epoch for epoch, _ in self.evidence.exposed] + [epoch for _, epoch, _ in self.evidence.sums]
        return range(max([1, len(self.experiment.epochs), *(epoch + 1 for epoch in seen)]))

    def metric(self, name: str) -> Metric:
        """A metric that was forgotten is taken for a float of which more is better."""
        return self.metrics.get(name) or Metric(self.experiment.tenant, name, MetricKind.FLOAT)

    def exposed(self, variant: str) -> list[int]:
        """Units by epoch."""
        return [self.evidence.exposed.get((epoch, variant), 0) for epoch in self.epochs]

    def arm(self, metric: Metric, variant: str) -> Arm:
        """What the variant's units say of the metric, by epoch. Made once."""
        if (metric.name, variant) not in self._arms:
            sums = estimation.stack(self.sums(metric, variant))
            self._arms[metric.name, variant] = estimation.arm(sums, bounded=is_share(metric))
        return self._arms[metric.name, variant]

    def sums(self, metric: Metric, variant: str) -> list[Sums]:
        """By epoch."""
        found = [self.evidence.sums.get((metric.name, epoch, variant), Sums()) for epoch in self.epochs]
        if metric.kind is MetricKind.COUNT:
            return [_per_unit(sums, units) for sums, units in zip(found, self.exposed(variant), strict=True)]
        return found

    def against_control(self, metric: Metric, variant: str, factor: float = 1.0) -> Contrast:
        """The candidate's mean minus `factor` times the control's, steadied by the past if the plan says so."""
        control = self.arm(metric, self.experiment.control.name)
        steadied = self.experiment.plan.cuped_days > 0
        return estimation.contrast(self.arm(metric, variant), control, factor=factor, steadied=steadied)


@dataclass(frozen=True, slots=True)
class Alone:
    """One arm by itself, over all of its units: how many have the metric, how often they were measured, the mean, and
    its confidence sequence (None below two units)."""

    units: int
    measurements: int
    value: float
    low: float | None
    high: float | None


def alone(bench: Bench, name: str, variant: str) -> Alone | None:
    """None where nothing was measured. Of a share, the ends stay within 0 and 1."""
    plan, metric = bench.experiment.plan, bench.metric(name)
    sums = estimation.total(bench.sums(metric, variant))
    if sums.units == 0 or sums.n <= 0:
        return None
    arm = estimation.arm(estimation.stack([sums]), bounded=is_share(metric))
    value = float(arm.mean[0])
    if sums.units < 2:
        return Alone(sums.units, int(sums.n), value, None, None)
    se = np.sqrt(arm.variance[0] / sums.units)
    width = float(sequences.half_width(se, sums.units, alpha=plan.alpha, planned=plan.planned_units))
    low, high = value - width, value + width
    if is_share(metric):
        low, high = max(low, 0.0), min(high, 1.0)
    return Alone(sums.units, int(sums.n), value, low, high)


def compared(bench: Bench, name: str, variant: str) -> Figure:
    """Any metric of one candidate against the control, asked for by itself: its status knows of no other figure."""
    return corrected([_goal(bench, name, Role.SECONDARY, variant)], bench.experiment.plan.alpha)[0]


def is_share(metric: Metric) -> bool:
    """Whether each value lies in [0, 1]."""
    return metric.kind is MetricKind.BOOLEAN or (metric.unit == "share" and metric.kind is not MetricKind.COUNT)


def sign(metric_or_figure: Metric | Figure) -> int:
    """1 if more is better, else -1."""
    return -1 if metric_or_figure.optimize == "min" else 1


def goals(bench: Bench) -> list[Figure]:
    """Primary and secondaries of every candidate, with Holm's correction over all of them."""
    plan = bench.experiment.plan
    roles = dict.fromkeys(plan.secondaries, Role.SECONDARY)
    if plan.primary is not None:
        roles = {plan.primary: Role.PRIMARY} | {n: r for n, r in roles.items() if n != plan.primary}
    return corrected(
        [_goal(bench, name, role, variant) for name, role in roles.items() for variant in bench.candidates], plan.alpha
    )


def corrected(figures: list[Figure], alpha: float) -> list[Figure]:
    """The same with Holm's p-values over all of them, and the status that follows. None counts as 1."""
    adjusted = sequences.holm([1.0 if figure.p is None else figure.p for figure in figures])
    return [_judged(figure, float(p), alpha) for figure, p in zip(figures, adjusted, strict=True)]


def guardrails(bench: Bench) -> list[Figure]:
    """Every guardrail of every candidate.

    A breach is tested at alpha / (guardrails x candidates): whether anything is rolled back wrongly, ever, has chance
    alpha. That one holds is tested at alpha / candidates: to ship, all of one candidate's must hold at once, so that
    their number makes a wrong one no likelier.
    """
    plan, found = bench.experiment.plan, []
    for variant in bench.candidates:
        found += [_guardrail(bench, guardrail, variant) for guardrail in plan.guardrails]
    return found


def segments(bench: Bench) -> tuple[Segment, ...]:
    """The primary metric in each part of the traffic, corrected over all parts and candidates."""
    plan = bench.experiment.plan
    if plan.primary is None or not bench.evidence.segments:
        return ()
    parts = sorted(bench.evidence.segments)
    benches = [replace(bench, evidence=bench.evidence.segments[part]) for part in parts]
    flat = [_goal(one, plan.primary, Role.PRIMARY, variant) for one in benches for variant in bench.candidates]
    flat, width = corrected(flat, plan.alpha), len(bench.candidates)
    return tuple(Segment(part, tuple(flat[at * width : (at + 1) * width])) for at, part in enumerate(parts))


def _goal(bench: Bench, name: str, role: Role, variant: str) -> Figure:
    plan, metric = bench.experiment.plan, bench.metric(name)
    found = bench.against_control(metric, variant)
    figure = _figure(bench, metric, role, variant, found)
    if figure.difference is None:
        return figure
    at: dict[str, Any] = {"planned": plan.planned_units}
    width = float(sequences.half_width(found.se, found.units, alpha=plan.alpha, **at))
    p = float(sequences.p_value(found.value, found.se, found.units, tuned=plan.alpha, **at))
    low, high = figure.difference - width, figure.difference + width
    if figure.share:  # two shares cannot differ by more, though an estimate that is steadied by the past may
        low, high = max(low, min(-1.0, figure.difference)), min(high, max(1.0, figure.difference))
    return replace(figure, low=low, high=high, p=p if figure.past_burn_in else None)


def _judged(figure: Figure, adjusted: float, alpha: float) -> Figure:
    if figure.p is None or figure.difference is None:
        return figure
    status = Status.UNCLEAR
    if adjusted <= alpha:
        status = Status.BETTER if sign(figure) * figure.difference > 0 else Status.WORSE
    return replace(figure, adjusted_p=adjusted, status=status)


def _guardrail(bench: Bench, guardrail: Guardrail, variant: str) -> Figure:
    plan, metric = bench.experiment.plan, bench.metric(guardrail.metric)
    found, factor, room = bench.against_control(metric, variant), 1.0, guardrail.margin
    if guardrail.relative:
        room = guardrail.margin * abs(float(found.control))
        factor = 1 - sign(metric) * guardrail.margin * float(np.sign(found.control))
        found = bench.against_control(metric, variant, factor)
    figure = _figure(bench, metric, Role.GUARDRAIL, variant, found)
    if figure.difference is None:
        return figure
    candidates, at = len(bench.candidates), {"planned": plan.planned_units}
    breach = plan.alpha / (len(plan.guardrails) * candidates)
    up = sign(metric)
    margin = 0.0 if guardrail.relative else guardrail.margin
    spare = up * float(found.value) + margin  # how far from the limit, on the good side
    worst = spare - float(sequences.one_sided_width(found.se, found.units, alpha=plan.alpha / candidates, **at))
    best = spare + float(sequences.one_sided_width(found.se, found.units, alpha=breach, **at))
    p = float(sequences.one_sided_p(-spare, found.se, found.units, tuned=breach, **at)) * plan.alpha / breach
    ends = sorted((up * (worst - room), up * (best - room)))
    status = Status.BREACHED if best < 0 else Status.HELD if worst > 0 else Status.UNCLEAR
    past = figure.past_burn_in
    return replace(
        figure,
        status=status if past else Status.UNCLEAR,
        low=ends[0],
        high=ends[1],
        p=min(1.0, p) if past else None,
        limit=-up * room,
    )


def _figure(bench: Bench, metric: Metric, role: Role, variant: str, found: Contrast) -> Figure:
    """Without interval and status. Empty where the two cannot be compared yet."""
    plan, units = bench.experiment.plan, (int(found.arm_units), int(found.control_units))
    blank = Figure(
        metric.name, role, variant, metric.optimize, metric.unit, is_share(metric), Status.UNCLEAR, units[0], units[1]
    )
    if min(units) < 2 or not np.isfinite(found.se):
        return blank
    value, control = float(found.arm), float(found.control)
    return replace(
        blank,
        value=value,
        control=control,
        difference=value - control,
        relative=(value - control) / abs(control) if control else None,
        past_burn_in=min(units) >= plan.burn_in,
        diagnostics=_diagnostics(found, sign(metric), plan.alpha, adaptive=plan.allocation is Allocation.THOMPSON)
        if role is not Role.GUARDRAIL
        else None,
    )


def _diagnostics(found: Contrast, up: int, alpha: float, *, adaptive: bool) -> Diagnostics | None:
    from scipy.special import ndtr, stdtr, stdtrit  # 0.25 s of import, which a gateway without experiments can spare

    value, se, freedom = float(found.value), float(found.se), float(found.freedom)
    if se <= 0 or freedom <= 0:
        return None
    chance = float(ndtr(up * value / se))
    if adaptive:
        return Diagnostics(None, None, None, chance)
    width = float(stdtrit(freedom, 1 - alpha / 2)) * se
    return Diagnostics(float(2 * stdtr(freedom, -abs(value / se))), value - width, value + width, chance)


def _per_unit(sums: Sums, exposed: int) -> Sums:
    """A count's sums, with every exposed unit measured once: who said nothing counted 0. Nothing is known of the past
    of those, so that where there are any nobody's past counts."""
    units = max(exposed, sums.units)
    once = replace(sums, units=units, n=units, nn=units, ns=sums.s)
    if units == sums.units:
        return replace(once, m=units, nm=units, mm=units, sm=sums.s, nx=sums.x, mx=sums.x)
    return replace(once, m=0.0, x=0.0, nm=0.0, nx=0.0, sm=0.0, sx=0.0, mm=0.0, mx=0.0, xx=0.0)
