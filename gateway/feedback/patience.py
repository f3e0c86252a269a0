"""How many further units it takes until something is conclusive, if the differences stay as they are. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gateway.feedback import sequences
from gateway.feedback.figures import Bench, sign
from gateway.findings import Figure, Role, Status


def further(bench: Bench, goal: Figure, guardrails: Iterable[Figure], *, goals: int) -> float:
    """Further units, of all arms together, until the goal is conclusive either way, at the level that Holm asks of the
    first of `goals`, and its candidate's guardrails hold if it leads. Infinite where that is out of reach."""
    plan, waits = bench.experiment.plan, []
    if goal.status is Status.UNCLEAR:
        waits.append(_wait(bench, goal, plan.alpha / goals))
    if sign(goal) * (goal.difference or 0.0) > 0:
        level = plan.alpha / len(bench.candidates)
        waits += [_wait(bench, rail, level) for rail in guardrails if rail.status is not Status.HELD]
    return max(waits, default=0.0)


def _wait(bench: Bench, figure: Figure, alpha: float) -> float:
    if figure.difference is None or figure.low is None or figure.high is None:
        return np.inf
    plan, pair = bench.experiment.plan, figure.units + figure.control_units
    if figure.role is Role.GUARDRAIL:
        one_sided, distance = True, sign(figure) * (figure.difference - (figure.limit or 0.0))
        width = abs(figure.difference - (figure.low if sign(figure) > 0 else figure.high))
        per_se = sequences.one_sided_width(1.0, pair, alpha=alpha, planned=plan.planned_units)
    else:
        one_sided, distance = False, abs(figure.difference)
        width = (figure.high - figure.low) / 2
        per_se = sequences.half_width(1.0, pair, alpha=plan.alpha, planned=plan.planned_units)
    if distance <= 0:
        return np.inf
    needed = sequences.units_until(
        distance,
        width / float(per_se),
        pair,
        alpha=alpha,
        tuned=alpha if one_sided else plan.alpha,
        planned=plan.planned_units,
        one_sided=one_sided,
    )
    everybody = sum(sum(bench.exposed(variant.name)) for variant in bench.experiment.variants)
    return (needed - pair) * everybody / pair
