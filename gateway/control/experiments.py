"""Experiments: a comparison of an alias's variants, from a moment on, with users dealt out anew.

Each step is a swap of the alias (`swap.py`), so that it counts from the moment all workers have it, and a row of the
audit log with who, why and the figures given. What a step comes to is `stages.py`'s. It ends by a step, or when the
alias's variants change by hand.
"""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gateway.control import layers, stages
from gateway.control.names import check_variants, require_tenant, unknown
from gateway.control.plans import (
    USUAL_CANARY,
    arms_of,
    check_arms,
    check_coverage,
    check_plan,
    check_start,
    plan_of,
)
from gateway.control.swap import Move, Swaps
from gateway.domain import Alias, Unit, Variant
from gateway.errors import Conflict, InvalidRequest
from gateway.experiment import Epoch, Experiment, Plan, Stage
from gateway.identity import unit_of
from gateway.store import aliases, experiments, metrics
from gateway.store.aliases import variants_to_rows
from gateway.store.database import Database
from gateway.store.snapshots import read_secret


class Experiments:
    """Start, lead on, end, look at. An alias has at most one that has not ended."""

    def __init__(self, db: Database, swaps: Swaps) -> None:
        self._db = db
        self._swaps = swaps

    async def start(
        self,
        tenant: str,
        alias: str,
        *,
        name: str,
        metric: str | None = None,
        variants: Sequence[Variant] | None = None,
        candidates: Sequence[Variant] | None = None,
        plan: Plan | None = None,
        unit: Unit = Unit.TARGETING_KEY,
        coverage: float = 1.0,
        canary_coverage: float | None = None,
        layer: str | None = None,
        stage: Stage = Stage.EXPERIMENT,
        shadow_share: float = 0.1,
        hypothesis: str = "",
        owner: str = "",
        actor: str,
    ) -> Experiment:
        """Begin to compare the alias's variants, or `variants`, which it then gets in the same swap, or what it serves
        now with `candidates`. The first is the control.

        `metric` is short for a plan with that primary metric. The owner is the actor unless another is named. Without
        a `canary_coverage` it is 0.05, or the coverage if that is less. Raises `Conflict` when one is running or a
        layer is full, `InvalidRequest` when there is nothing to compare.
        """
        # long because: an experiment has many sides, and each is named here once.
        canary = min(USUAL_CANARY, coverage) if canary_coverage is None else canary_coverage
        check_coverage(coverage, canary)
        check_start(stage, layer, unit)
        plan = plan_of(plan, metric)
        before = await self._ready_alias(tenant, alias, plan)
        arms = arms_of(before, variants, candidates)
        check_variants(tenant, arms)
        check_arms(before, arms, stage, shadow_share)
        now = datetime.now(UTC)
        fresh = Experiment(
            id=f"exp-{secrets.token_hex(8)}",
            tenant=tenant,
            alias=alias,
            name=name,
            variants=arms,
            stage=stage,
            started_at=now,
            plan=plan,
            unit=unit,
            coverage=coverage,
            canary_coverage=canary,
            layer=layer,
            hypothesis=hypothesis,
            owner=owner or actor,
            epochs=(Epoch(before.revision + 1, now, stages.weights_of(arms)),),
        )
        return await self._begin(before, fresh, shadow_share, actor)

    async def _begin(self, before: Alias, fresh: Experiment, shadow_share: float, actor: str) -> Experiment:
        # A new salt deals the users out anew, so nobody's earlier habit follows a variant. It is not the id, which
        # clients see: with the salt, one could choose a targeting key that falls into a wanted variant.
        anew = replace(before, salt=secrets.token_hex(16))
        async with self._db.transaction(picture=True) as connection:
            salt, stretches = await layers.space(connection, anew, fresh, stages.coverage_at(fresh, fresh.stage))
        after, begun = stages.begun(anew, fresh, salt, stretches, shadow_share)
        note = {"name": fresh.name, "variants": variants_to_rows(fresh.variants), "coverage": fresh.coverage}
        await self._swaps.swap(Move(before, after, actor, "experiment start", begun, note))
        return begun

    async def pause(self, experiment_id: str, *, why: str = "", actor: str) -> Experiment:
        """Everybody gets the control and nothing is counted, until `resume`. Pausing twice is fine."""

        def step(alias: Alias, one: Experiment) -> stages.Step | None:
            return None if one.paused else stages.paused(alias, one)

        return await self._step(experiment_id, "pause", step, actor, why=why)

    async def resume(self, experiment_id: str, *, why: str = "", actor: str) -> Experiment:
        """Everybody gets back to their arm. Resuming twice is fine."""

        def step(alias: Alias, one: Experiment) -> stages.Step | None:
            return stages.resumed(alias, one) if one.paused else None

        return await self._step(experiment_id, "resume", step, actor, why=why)

    async def advance(
        self, experiment_id: str, *, why: str, figures: Mapping[str, Any] | None = None, actor: str
    ) -> Experiment:
        """To the next stage: shadow, canary, experiment. Raises `Conflict` where none follows, while it is paused, or
        if its layer has no room for it."""
        before, one = await self._live(experiment_id)
        wanted = stages.coverage_at(one, stages.next_stage(one))
        async with self._db.transaction(picture=True) as connection:
            salt, stretches = await layers.space(connection, before, one, wanted)
        step = stages.advanced(before, one, salt, stretches, datetime.now(UTC))
        return await self._swap(before, step, "advance", actor, why=why, figures=figures, coverage=wanted)

    async def promote(
        self, experiment_id: str, variant: str, *, why: str, figures: Mapping[str, Any] | None = None, actor: str
    ) -> Experiment:
        """End it with the candidate `variant` as all that the alias serves."""

        def step(alias: Alias, one: Experiment) -> stages.Step:
            chosen = stages.candidate_named(one, variant)
            return stages.ended(alias, one, Stage.PROMOTED, chosen, reason=why, now=datetime.now(UTC))

        return await self._step(experiment_id, "promote", step, actor, why=why, figures=figures, variant=variant)

    async def roll_back(
        self, experiment_id: str, *, why: str, figures: Mapping[str, Any] | None = None, actor: str
    ) -> Experiment:
        """End it with the control as all that the alias serves. Rolling back twice is fine."""
        return await self._to_control(experiment_id, Stage.ROLLED_BACK, "rollback", why, actor, figures)

    async def stop(self, experiment_id: str, *, reason: str, actor: str) -> Experiment:
        """End it without a judgement: the control is all that the alias serves. Stopping what has ended is fine."""
        return await self._to_control(experiment_id, Stage.STOPPED, "stop", reason, actor, None)

    async def reweight(
        self,
        experiment_id: str,
        weights: Sequence[float],
        *,
        why: str,
        figures: Mapping[str, Any] | None = None,
        actor: str,
    ) -> Experiment:
        """Deal users out by new weights, in the variants' order, moving as few as possible: a new epoch. Weights in the
        same proportion as before would move nobody: then all stays as it is."""

        def step(alias: Alias, one: Experiment) -> stages.Step | None:
            stages.check_weights(weights, len(one.variants))
            same = stages.proportional(weights, stages.weights_of(one.variants))
            return None if same else stages.reweighted(alias, one, weights, datetime.now(UTC))

        return await self._step(
            experiment_id, "weights", step, actor, why=why, figures=figures, weights=builtins.list(weights)
        )

    async def override(self, experiment_id: str, targeting_key: str, variant: str | None, *, actor: str) -> Experiment:
        """Give a tester this variant whatever is drawn, outside of the analysis; None: as everybody again."""
        found = await self.get(experiment_id)
        if variant is not None and variant not in [one.name for one in found.variants]:
            raise unknown("variant", variant, param="variant")
        async with self._db.transaction(picture=True) as connection:
            unit = unit_of(await read_secret(connection), found.tenant, targeting_key)

        def step(alias: Alias, one: Experiment) -> stages.Step | None:
            known = one.split.overrides.get(unit) if one.split is not None else None
            return None if known == variant and one.split else stages.overridden(alias, one, unit, variant)

        return await self._step(experiment_id, "override", step, actor, unit=unit, variant=variant)

    async def widen(self, experiment_id: str, coverage: float, *, why: str = "", actor: str) -> Experiment:
        """Let a larger share of the units take part: at once at the stage experiment, else when that is reached.

        Whoever takes part stays. Raises `Conflict` if its layer has no room, `InvalidRequest` for a smaller share.
        """
        before, one = await self._live(experiment_id)
        check_coverage(coverage, one.canary_coverage)
        if one.stage is Stage.EXPERIMENT and coverage < one.coverage:
            raise InvalidRequest(
                f"The experiment covers {one.coverage:g} already, and whoever takes part stays.",
                remedy="Pause it, or end it and start another one.",
                param="coverage",
            )
        if coverage == one.coverage:
            await self._swaps.confirm(before)
            return one
        async with self._db.transaction(picture=True) as connection:
            salt, stretches = await layers.space(
                connection, before, one, coverage if one.stage is Stage.EXPERIMENT else 0.0
            )
        step = stages.widened(before, one, coverage, salt, stretches)
        return await self._swap(before, step, "coverage", actor, why=why, coverage=coverage)

    async def get(self, experiment_id: str) -> Experiment:
        """Raises `NotFound`. Whoever asks must check whose it is."""
        async with self._db.transaction(picture=True) as connection:
            found = await experiments.find(connection, experiment_id)
        if found is None:
            raise unknown("experiment", experiment_id, param="id")
        return found

    async def list(self, tenant: str) -> builtins.list[Experiment]:
        """The newest first. Raises `NotFound` for an unknown tenant."""
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            return await experiments.of_tenant(connection, tenant)

    async def _to_control(
        self, experiment_id: str, stage: Stage, reason: str, why: str, actor: str, figures: Mapping[str, Any] | None
    ) -> Experiment:
        found = await self.get(experiment_id)
        if found.stage is stage or (found.stage.ended and stage is Stage.STOPPED):
            async with self._db.transaction(picture=True) as connection:
                alias = await aliases.find(connection, found.tenant, found.alias)
            if alias is not None:
                await self._swaps.confirm(alias)
            return found

        def step(alias: Alias, one: Experiment) -> stages.Step:
            return stages.ended(alias, one, stage, one.control, reason=why, now=datetime.now(UTC))

        return await self._step(experiment_id, reason, step, actor, why=why, figures=figures)

    async def _step(
        self,
        experiment_id: str,
        reason: str,
        build: Callable[[Alias, Experiment], stages.Step | None],
        actor: str,
        **note: Any,
    ) -> Experiment:
        """Take a step, or only wait until every worker has it where it was taken before (None)."""
        before, one = await self._live(experiment_id)
        step = build(before, one)
        if step is None:
            await self._swaps.confirm(before)
            return one
        return await self._swap(before, step, reason, actor, **note)

    async def _swap(self, before: Alias, step: stages.Step, reason: str, actor: str, **note: Any) -> Experiment:
        after, experiment = step
        told = {name: value for name, value in note.items() if value not in (None, "")}
        await self._swaps.swap(Move(before, after, actor, f"experiment {reason}", experiment, told))
        return experiment

    async def _live(self, experiment_id: str) -> tuple[Alias, Experiment]:
        """With its alias, of one moment. Raises `NotFound`, and `Conflict` for one that has ended."""
        async with self._db.transaction(picture=True) as connection:
            found = await experiments.find(connection, experiment_id)
            if found is None:
                raise unknown("experiment", experiment_id, param="id")
            alias = await aliases.find(connection, found.tenant, found.alias)
        if found.stage.ended or alias is None:
            raise Conflict(
                f"The experiment {found.id} has ended ({found.stage.value}).", remedy="Start another one.", code="ended"
            )
        return alias, found

    async def _ready_alias(self, tenant: str, alias: str, plan: Plan) -> Alias:
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            found = await aliases.find(connection, tenant, alias)
            declared = {metric.name: metric for metric in await metrics.of_tenant(connection, tenant)}
        check_plan(plan, declared)
        if found is None:
            raise unknown("alias", alias, param="alias")
        if found.experiment is not None:
            raise Conflict(
                f"The experiment {found.experiment} is running on the alias `{alias}`.", remedy="Stop it first."
            )
        return found
