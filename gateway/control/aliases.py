"""Aliases: the names that clients use, and what each points to. Every move is a swap (`swap.py`).

Any change of an alias's variants ends its running experiment: what comes after would not be the comparison that began.
A shadow is no variant: it comes and goes beside them, and stays until somebody removes it; an experiment's own goes
with its stage.
"""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Sequence
from dataclasses import replace

from adapters.ref import AdapterRef
from gateway.control.names import check_name, check_shadow, check_variants, require_tenant, unknown
from gateway.control.swap import Move, Swaps
from gateway.domain import SHADOW, Alias, Fallback, Shadow, Swapped, Variant
from gateway.errors import Conflict
from gateway.experiment import Experiment, Stage
from gateway.store import aliases, experiments
from gateway.store.database import Database


class Aliases:
    """Set, promote, roll back, look at. Each change returns when all live workers have it."""

    def __init__(self, db: Database, swaps: Swaps) -> None:
        self._db = db
        self._swaps = swaps

    async def set(
        self, tenant: str, alias: str, variants: Sequence[Variant], *, fallback: Fallback | None = None, actor: str
    ) -> Swapped:
        """Make `alias` point to `variants`; there need not be one yet. Without `fallback`, that stays as it is."""
        check_name("an alias", alias, reserved=True)
        check_variants(tenant, variants)
        before = await self._find(tenant, alias)
        return await self._move(before, pointing(before, tenant, alias, variants, fallback=fallback), "set", actor)

    async def promote(
        self, tenant: str, alias: str, ref: AdapterRef, *, variant: str | None = None, actor: str
    ) -> Swapped:
        """Let `ref` serve: all of the alias (as its only variant, `tuned`), or the share of the named variant."""
        before = await self.get(tenant, alias)
        variants: Sequence[Variant] = (Variant("tuned", 1, ref),)
        if variant is not None:
            if variant not in [known.name for known in before.variants]:
                raise unknown("variant", variant, param="variant")
            variants = [replace(v, ref=ref) if v.name == variant else v for v in before.variants]
        check_variants(tenant, variants)
        return await self._move(before, pointing(before, tenant, alias, variants), "promote", actor)

    async def rollback(self, tenant: str, alias: str, *, actor: str) -> Swapped:
        """Go back to the variants before the last change of them; doing it twice is where one began."""
        before = await self.get(tenant, alias)
        if before.previous is None:
            raise Conflict(f"The alias `{alias}` never pointed anywhere else.", remedy="Set it instead.")
        return await self._move(before, pointing(before, tenant, alias, before.previous), "rollback", actor)

    async def mirror(self, tenant: str, alias: str, shadow: Shadow | None, *, actor: str) -> Swapped:
        """Mirror a share of the alias's requests to a candidate, or to none any more (None).

        It is a revision like any other, so that the history tells who did it; who gets what stays as it was, the
        running experiment and `previous` included.
        """
        before = await self.get(tenant, alias)
        if shadow is not None:
            check_shadow(tenant, shadow)
        after = replace(before, revision=before.revision + 1, shadow=shadow)
        return await self._move(before, after, SHADOW, actor)

    async def get(self, tenant: str, alias: str) -> Alias:
        """Raises `NotFound`."""
        found = await self._find(tenant, alias)
        if found is None:
            raise unknown("alias", alias, param="alias")
        return found

    async def list(self, tenant: str) -> builtins.list[Alias]:
        """By name. Raises `NotFound` for an unknown tenant."""
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            return await aliases.of_tenant(connection, tenant)

    async def _find(self, tenant: str, alias: str) -> Alias | None:
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            return await aliases.find(connection, tenant, alias)

    async def _move(self, before: Alias | None, after: Alias, reason: str, actor: str) -> Swapped:
        if before is not None and after == replace(before, revision=after.revision):
            return await self._swaps.confirm(before)
        if before is not None and before.experiment is not None and after.experiment is None:
            # Whoever leads the experiment on meanwhile moves the alias, too, and then this move is refused.
            async with self._db.transaction(picture=True) as connection:
                one = await experiments.find(connection, before.experiment)
            after = after if one is None else replace(after, shadow=shadow_without(before, one))
        return await self._swaps.swap(Move(before, after, actor, reason))


def pointing(
    before: Alias | None, tenant: str, name: str, variants: Sequence[Variant], *, fallback: Fallback | None = None
) -> Alias:
    """The revision that follows `before`, with these variants. Pure.

    `previous` becomes the variants that were replaced; while they stay the same, `previous` and the experiment stay.
    Of an experiment that is its control: most users had that, and going back to the arms would give them to everybody.
    """
    if before is None:
        return Alias(tenant, name, 1, tuple(variants), secrets.token_hex(16), fallback=fallback or Fallback.ERROR)
    after = replace(before, revision=before.revision + 1, fallback=fallback or before.fallback)
    if tuple(variants) == before.variants:
        return after
    left = before.variants if before.experiment is None else (alone(before.variants[0]),)
    return replace(after, variants=tuple(variants), previous=left, experiment=None, split=None)


def alone(variant: Variant) -> Variant:
    """With all of the traffic."""
    return replace(variant, weight=1.0)


def shadow_without(alias: Alias, experiment: Experiment) -> Shadow | None:
    """The experiment's own shadow is gone with its stage; what somebody else mirrors stays."""
    shadow = alias.shadow
    own = shadow is not None and experiment.stage is Stage.SHADOW and shadow.ref == experiment.variants[1].ref
    return None if own else shadow
