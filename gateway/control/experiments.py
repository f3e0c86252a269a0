"""Experiments: a comparison of an alias's variants, from a moment on, with users dealt out anew.

The variants are frozen at the start. It ends when somebody stops it or when the alias's variants change.
"""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from gateway.control.aliases import pointing
from gateway.control.names import check_variants, require_tenant, unknown
from gateway.control.swap import Move, Swaps
from gateway.domain import Alias, MetricKind, Unit, Variant
from gateway.errors import Conflict, InvalidRequest
from gateway.experiment import Epoch, Experiment, Plan, Stage
from gateway.store import aliases, experiments, metrics
from gateway.store.changes import change
from gateway.store.database import Connection, Database


class Experiments:
    """Start, stop, look at. An alias has at most one running."""

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
        canary_coverage: float = 0.05,
        layer: str | None = None,
        stage: Stage = Stage.EXPERIMENT,
        shadow_share: float = 0.1,
        hypothesis: str = "",
        owner: str = "",
        actor: str,
    ) -> Experiment:
        """Begin to compare the alias's variants, or `variants`, which it then gets in the same swap.

        `metric` must be declared and have numbers. Raises `Conflict` when one is running, `InvalidRequest` when there
        is nothing to compare.
        """
        before = await self._ready_alias(tenant, alias, metric)
        arms = tuple(before.variants if variants is None else variants)
        check_variants(tenant, arms)
        if sum(arm.weight > 0 for arm in arms) < 2:
            raise InvalidRequest(
                "An experiment compares at least two variants with traffic.",
                remedy="Give variants, or set the alias first.",
                param="variants",
            )
        now, weights = datetime.now(UTC), tuple(arm.weight for arm in arms)
        experiment = Experiment(
            id=f"exp-{secrets.token_hex(8)}",
            tenant=tenant,
            alias=alias,
            name=name,
            variants=arms,
            stage=Stage.EXPERIMENT,
            started_at=now,
            plan=Plan(primary=metric),
            epochs=(Epoch(before.revision + 1, now, weights),),
        )
        # A new salt deals the users out anew, so nobody's earlier habit follows a variant. It is not the id, which
        # clients see: with the salt, one could choose a targeting key that falls into a wanted variant.
        after = replace(pointing(before, tenant, alias, arms), salt=secrets.token_hex(16), experiment=experiment.id)
        await self._swaps.swap(Move(before, after, actor, "experiment", experiment))
        return experiment

    async def stop(self, experiment_id: str, *, reason: str, actor: str) -> Experiment:
        """End it; the alias keeps its variants. Stopping twice is fine. Raises `NotFound`."""
        running = await self.get(experiment_id)
        async with change(self._db, "experiment.stop", experiment_id, tenant=running.tenant, actor=actor) as new:
            new.detail["reason"] = reason
            await experiments.end(new.connection, experiment_id, Stage.STOPPED, reason=reason)
            alias = await aliases.find(new.connection, running.tenant, running.alias)
            if alias is not None and alias.experiment == experiment_id:
                alone = replace(alias, revision=alias.revision + 1, experiment=None)
                await aliases.put(new.connection, alone, actor=actor, reason="experiment stopped")
            stopped = await experiments.find(new.connection, experiment_id)
        assert stopped is not None  # experiments are never deleted
        return stopped

    async def pause(self, experiment_id: str, *, why: str = "", actor: str) -> Experiment:
        """Everybody gets the control and nothing is counted, until `resume`."""
        raise NotImplementedError

    async def resume(self, experiment_id: str, *, why: str = "", actor: str) -> Experiment:
        """Everybody gets back to their arm."""
        raise NotImplementedError

    async def advance(
        self, experiment_id: str, *, why: str, figures: Mapping[str, Any] | None = None, actor: str
    ) -> Experiment:
        """To the next stage: shadow, canary, experiment. Raises `Conflict` where none follows."""
        raise NotImplementedError

    async def promote(
        self, experiment_id: str, variant: str, *, why: str, figures: Mapping[str, Any] | None = None, actor: str
    ) -> Experiment:
        """End it with `variant` as all that the alias serves."""
        raise NotImplementedError

    async def roll_back(
        self, experiment_id: str, *, why: str, figures: Mapping[str, Any] | None = None, actor: str
    ) -> Experiment:
        """End it with the control as all that the alias serves."""
        raise NotImplementedError

    async def reweight(
        self,
        experiment_id: str,
        weights: Sequence[float],
        *,
        why: str,
        figures: Mapping[str, Any] | None = None,
        actor: str,
    ) -> Experiment:
        """Deal users out by new weights, in the variants' order, moving as few as possible: a new epoch."""
        raise NotImplementedError

    async def override(self, experiment_id: str, targeting_key: str, variant: str | None, *, actor: str) -> Experiment:
        """Give a tester this variant whatever is drawn, outside of the analysis; None: as everybody again."""
        raise NotImplementedError

    async def widen(self, experiment_id: str, coverage: float, *, why: str = "", actor: str) -> Experiment:
        """Let a larger share of the units take part. Raises `Conflict` if its layer has no room."""
        raise NotImplementedError

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

    async def _ready_alias(self, tenant: str, alias: str, metric: str | None) -> Alias:
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            found = await aliases.find(connection, tenant, alias)
            if metric is not None:
                await _check_metric(connection, tenant, metric)
        if found is None:
            raise unknown("alias", alias, param="alias")
        if found.experiment is not None:
            raise Conflict(
                f"The experiment {found.experiment} is running on the alias `{alias}`.", remedy="Stop it first."
            )
        return found


async def _check_metric(connection: Connection, tenant: str, name: str) -> None:
    metric = await metrics.find(connection, tenant, name)
    if metric is None:
        raise InvalidRequest(f"The tenant has no metric `{name[:80]}`.", remedy="Declare it first.", param="metric")
    if metric.kind not in (MetricKind.BOOLEAN, MetricKind.FLOAT):
        raise InvalidRequest(
            f"A metric of kind {metric.kind} has no rate or mean to compare variants by.",
            remedy="Name a metric of kind boolean or float.",
            param="metric",
        )
