"""The way of an experiment, as pure functions: what a step makes of it and of its alias.

    shadow ──▶ canary ──▶ experiment ──▶ promoted
       └──────────┴───────────┴────────▶ rolled_back, stopped

Through canary and experiment the weights stay the same and the coverage grows: a unit that takes part keeps its arm,
and whoever takes no part has the control (docs/decisions/0011). Every step is a new revision of the alias. Nothing here
reads or writes anything: what others of a layer hold is handed in as `stretches`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from gateway.control.aliases import alone, pointing, shadow_without
from gateway.control.buckets import Stretch, dealt, rebucket
from gateway.domain import Alias, Shadow, Split, Variant
from gateway.errors import Conflict, InvalidRequest
from gateway.experiment import Epoch, Experiment, Stage

MOST_TESTERS = 1000
MOST_WEIGHT = 1_000_000

Step = tuple[Alias, Experiment]

_NEXT = {Stage.SHADOW: Stage.CANARY, Stage.CANARY: Stage.EXPERIMENT}


def coverage_at(experiment: Experiment, stage: Stage) -> float:
    """The share of the units that takes part at a stage."""
    if stage is Stage.EXPERIMENT:
        return experiment.coverage
    return experiment.canary_coverage if stage is Stage.CANARY else 0.0


def begun(alias: Alias, experiment: Experiment, salt: str, stretches: Sequence[Stretch], share: float) -> Step:
    """The first stage. `alias` has its new salt; `salt` is the layer's or the same; `share` is the shadow's."""
    if experiment.stage is Stage.SHADOW:
        control, candidate = experiment.variants
        after = pointing(alias, alias.tenant, alias.name, (alone(control),))
        return replace(after, experiment=experiment.id, shadow=Shadow(candidate.ref, share)), experiment
    after = pointing(alias, alias.tenant, alias.name, experiment.variants)
    return _opened(replace(after, experiment=experiment.id), experiment, salt, stretches)


def next_stage(experiment: Experiment) -> Stage:
    """Raises `Conflict` where none follows by itself."""
    _require_unpaused(experiment)
    if experiment.stage not in _NEXT:
        raise Conflict("This is the last stage before the end.", remedy="Promote a variant, roll back, or stop.")
    return _NEXT[experiment.stage]


def advanced(alias: Alias, experiment: Experiment, salt: str, stretches: Sequence[Stretch], now: datetime) -> Step:
    """The next stage, with these stretches taking part."""
    stage, revision = next_stage(experiment), alias.revision + 1
    if experiment.stage is Stage.CANARY:
        return _opened(replace(alias, revision=revision), replace(experiment, stage=stage), salt, stretches)
    # Nobody has been exposed before, so this is where its first epoch begins.
    epochs = (Epoch(revision, now, weights_of(experiment.variants)),)
    after = pointing(alias, alias.tenant, alias.name, experiment.variants)
    after = replace(after, experiment=experiment.id, shadow=shadow_without(alias, experiment))
    return _opened(after, replace(experiment, stage=stage, epochs=epochs), salt, stretches)


def widened(alias: Alias, experiment: Experiment, coverage: float, salt: str, stretches: Sequence[Stretch]) -> Step:
    """A larger coverage: at once at the stage `experiment`, else when that is reached."""
    wider, after = replace(experiment, coverage=coverage), replace(alias, revision=alias.revision + 1)
    return _opened(after, wider, salt, stretches) if experiment.stage is Stage.EXPERIMENT else (after, wider)


def paused(alias: Alias, experiment: Experiment) -> Step:
    """Everybody has the control."""
    _require_users(experiment, "paused")
    return replace(alias, revision=alias.revision + 1, split=None), replace(experiment, paused=True)


def resumed(alias: Alias, experiment: Experiment) -> Step:
    """Everybody has their arm again."""
    return replace(alias, revision=alias.revision + 1, split=experiment.split), replace(experiment, paused=False)


def reweighted(alias: Alias, experiment: Experiment, weights: Sequence[float], now: datetime) -> Step:
    """Other weights, with as few units as possible going to another arm: a new epoch."""
    split = _require_users(experiment, "given other weights")
    check_weights(weights, len(experiment.variants))
    arms = tuple(replace(arm, weight=weight) for arm, weight in zip(experiment.variants, weights, strict=True))
    buckets = rebucket(split.buckets, {arm.name: arm.weight for arm in arms})
    epochs = (*experiment.epochs, Epoch(alias.revision + 1, now, tuple(weights)))
    changed = replace(experiment, variants=arms, split=replace(split, buckets=buckets), epochs=epochs)
    return _shown(replace(alias, revision=alias.revision + 1, variants=arms), changed)


def overridden(alias: Alias, experiment: Experiment, unit: str, variant: str | None) -> Step:
    """A tester gets `variant`, or what everybody would get (None)."""
    split = _require_users(experiment, "given testers")
    overrides = {**split.overrides, unit: variant} if variant is not None else _without(split.overrides, unit)
    if len(overrides) > MOST_TESTERS:
        raise Conflict(f"There are {MOST_TESTERS} testers already.", remedy="Remove one.", param="targeting_key")
    changed = replace(experiment, split=replace(split, overrides=overrides))
    return _shown(replace(alias, revision=alias.revision + 1), changed)


def ended(alias: Alias, experiment: Experiment, stage: Stage, variant: Variant, *, reason: str, now: datetime) -> Step:
    """`variant` is all that the alias serves. Going back by hand then leads to the control, or to what was before it,
    and never to the arms."""
    after = replace(
        alias,
        revision=alias.revision + 1,
        variants=(alone(variant),),
        previous=alias.previous if variant.name == experiment.control.name else (alone(experiment.control),),
        experiment=None,
        split=None,
        shadow=shadow_without(alias, experiment),
    )
    return after, replace(experiment, stage=stage, paused=False, split=None, ended_at=now, end_reason=reason)


def candidate_named(experiment: Experiment, name: str) -> Variant:
    """What may be promoted. Raises `InvalidRequest` for what is no candidate, `Conflict` if no user has had it yet."""
    _require_users(experiment, "promoted from")
    found = next((one for one in experiment.variants[1:] if one.name == name), None)
    if found is None:
        names = ", ".join(one.name for one in experiment.variants[1:])
        raise InvalidRequest(
            f"`{name[:80]}` is no candidate of this experiment.",
            remedy=f"Promote one of: {names}. To keep the control, roll back.",
            param="variant",
        )
    return found


def check_weights(weights: Sequence[float], count: int) -> None:
    """Raises `InvalidRequest` unless these are weights of a control, the first, and its candidates."""
    if len(weights) != count or not all(0 <= one <= MOST_WEIGHT for one in weights):  # NaN is not
        raise InvalidRequest(f"Give each variant a weight, a number from 0 to {MOST_WEIGHT:,}.", param="weights")
    if not weights[0] > 0 or sum(one > 0 for one in weights) < 2:
        raise InvalidRequest(
            "An experiment compares at least two variants with traffic, the first of them as the control.",
            remedy="Give the control and a candidate a weight above 0.",
            param="weights",
        )


def proportional(weights: Sequence[float], others: Sequence[float]) -> bool:
    """Whether two sets of checked weights give each variant the same share."""
    total, of_others = sum(weights), sum(others)
    return all(math.isclose(a * of_others, b * total, rel_tol=1e-12) for a, b in zip(weights, others, strict=True))


def weights_of(variants: Sequence[Variant]) -> tuple[float, ...]:
    return tuple(variant.weight for variant in variants)


def _opened(alias: Alias, experiment: Experiment, salt: str, stretches: Sequence[Stretch]) -> Step:
    if experiment.split is None:
        buckets = dealt({arm.name: arm.weight for arm in experiment.variants})
        split = Split(experiment.unit, salt, tuple(stretches), buckets)
    else:
        split = replace(experiment.split, stretches=tuple(stretches))
    return _shown(alias, replace(experiment, split=split))


def _shown(alias: Alias, experiment: Experiment) -> Step:
    """The alias with what routing may see of the experiment."""
    return replace(alias, split=None if experiment.paused else experiment.split), experiment


def _without(overrides: Mapping[str, str], unit: str) -> dict[str, str]:
    return {known: variant for known, variant in overrides.items() if known != unit}


def _require_unpaused(experiment: Experiment) -> None:
    if experiment.paused:
        raise Conflict("The experiment is paused.", remedy="Resume it first.")


def _require_users(experiment: Experiment, verb: str) -> Split:
    if experiment.split is None:
        raise Conflict(
            f"At the stage shadow no user takes part, so it cannot be {verb}.",
            remedy="Advance it to the canary first, or stop it.",
        )
    return experiment.split
