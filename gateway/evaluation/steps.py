"""Which step an experiment's plan takes by itself. Pure: figures in, at most one step out.

A step is the rule's only where the plan says so (`By.RULE`):

    promote     the verdict says ship; at the stage `experiment`
    roll back   else, where users take part: the verdict says so, or any candidate's guardrail is breached. That ends
                the experiment for all its candidates: harm does not wait for what else could be learnt
    canary →    not blocked, no guardrail breached, and every arm has `canary_units` units with the primary metric (of a
    experiment  plan without one: units at all)
    shadow →    of every candidate `canary_units` mirrored answers were asked for, and the share that failed is at most
    canary      the margin of a guardrail `error_rate` (1 % without one)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.domain import BASE
from gateway.experiment import By, Experiment, Plan, Stage
from gateway.findings import Role, Status, Verdict, Word
from gateway.store.shadows import Compared

ERROR_RATE = "error_rate"
SHADOW_ERRORS = 0.01


class Action(StrEnum):
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done, and why, in a sentence. `variant` is the one to promote."""

    action: Action
    why: str
    variant: str | None = None


def next_step(experiment: Experiment, verdict: Verdict, shadows: Mapping[str, Compared]) -> Step | None:
    """The step that is due. `shadows` are the candidates' mirrored answers by their ref's text; needed in `shadow`."""
    plan, stage = experiment.plan, experiment.stage
    if stage is Stage.SHADOW:
        return _out_of_the_shadow(experiment, shadows) if plan.widen is By.RULE else None
    if stage is Stage.EXPERIMENT and plan.ship is By.RULE and verdict.word is Word.SHIP and verdict.variant:
        return Step(Action.PROMOTE, verdict.sentence, verdict.variant)
    if plan.roll_back is By.RULE and (why := _harm(verdict)):
        return Step(Action.ROLL_BACK, why)
    return _out_of_the_canary(experiment, verdict) if stage is Stage.CANARY and plan.widen is By.RULE else None


def _harm(verdict: Verdict) -> str | None:
    """Why the control must have the users back, if it must."""
    breached = [figure for figure in verdict.figures if figure.status is Status.BREACHED]
    if verdict.word is Word.ROLL_BACK:
        return verdict.sentence
    return f"The guardrail {breached[0].metric} of '{breached[0].variant}' is breached." if breached else None


def _out_of_the_canary(experiment: Experiment, verdict: Verdict) -> Step | None:
    least = min(judged_units(experiment, verdict).values())
    if verdict.word in (Word.BLOCKED, Word.ROLL_BACK) or _harm(verdict) or least < experiment.plan.canary_units:
        return None
    return Step(
        Action.ADVANCE, f"Every arm of the canary has {least} judged users or more, and no guardrail is broken."
    )


def judged_units(experiment: Experiment, verdict: Verdict) -> dict[str, int]:
    """Of each arm, the units that have the primary metric; of a plan without one, the units that were exposed."""
    arms = [variant.name for variant in experiment.variants]
    primary = [figure for figure in verdict.figures if figure.role is Role.PRIMARY]
    if experiment.plan.primary is None:
        return {arm: verdict.exposed.get(arm, 0) for arm in arms}
    judged = {figure.variant: figure.units for figure in primary}
    judged[arms[0]] = max((figure.control_units for figure in primary), default=0)
    return {arm: judged.get(arm, 0) for arm in arms}


def _out_of_the_shadow(experiment: Experiment, shadows: Mapping[str, Compared]) -> Step | None:
    wanted, most = experiment.plan.canary_units, tolerated(experiment.plan)
    candidates = [str(arm.ref) if arm.ref else BASE for arm in experiment.variants[1:]]
    seen = [shadows.get(ref) for ref in candidates]
    if not all(one is not None and one.requests >= wanted and one.errors <= most * one.requests for one in seen):
        return None
    told = ", ".join(f"{one.ref} failed {one.errors} of {one.requests}" for one in seen if one is not None)
    return Step(Action.ADVANCE, f"Of the mirrored requests, {told}: at most {most:.1%} may fail.")


def tolerated(plan: Plan) -> float:
    """The share of mirrored requests that a candidate may fail."""
    margins = [one.margin for one in plan.guardrails if one.metric == ERROR_RATE and not one.relative]
    return min(margins, default=SHADOW_ERRORS)
