"""Which rows made a version, and which versions a user's rows went into. Ids and digests only: no content is here."""

from __future__ import annotations

import asyncio
import builtins
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from adapters.lineage import LineageRow, read_lineage
from adapters.ref import AdapterRef
from gateway.control.names import require_tenant, unknown_adapter
from gateway.domain import Alias
from gateway.errors import InvalidRequest, NotFound
from gateway.identity import canonical_inference_id, is_inference_of, unit_of
from gateway.snapshot import Current
from gateway.store import adapters, aliases, lineage
from gateway.store.changes import note
from gateway.store.database import Connection, Database
from gateway.store.lineage import Part

_UNIT = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class Learnt:
    """A version that learnt from something: how many rows of it, and the aliases that send traffic there."""

    part: Part
    serving: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Who:
    """A user of a tenant, by the targeting key that its clients send, or by the hash of it: exactly one is given."""

    targeting_key: str | None = None
    unit: str | None = None


class Lineages:
    """Record, read, look up. `current` has the secret that a targeting key's hash takes."""

    def __init__(self, db: Database, current: Current) -> None:
        self._db = db
        self._current = current

    async def record(self, ref: AdapterRef, file: Path, *, actor: str) -> int:
        """Make the lines of `file` the lineage of a registered version, in place of any before; how many rows.

        Raises `NotFound`, and `InvalidExample` with the line that is wrong; then nothing has changed.
        """
        async with self._db.transaction() as connection:
            await self._require(connection, ref)
            rows = await lineage.replace(connection, ref, _batches(file))
            await note(connection, "adapter.lineage", str(ref), {"rows": rows}, tenant=ref.tenant, actor=actor)
        return rows

    async def rows(self, ref: AdapterRef) -> AsyncIterator[LineageRow]:
        """In the order of the training rows. Raises `NotFound` before the first."""
        async with self._db.transaction(picture=True) as connection:
            await self._require(connection, ref)
        async for row in lineage.rows(self._db, ref):
            yield row

    async def of_user(self, tenant: str, who: Who) -> tuple[str, builtins.list[Learnt]]:
        """The user's unit, and the versions that its rows went into. Raises `NotFound` for an unknown tenant."""
        unit = self.unit(tenant, who)
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            return unit, await _learnt(connection, tenant, await lineage.of_unit(connection, tenant, unit))

    async def of_inference(self, tenant: str, inference_id: str) -> tuple[str | None, builtins.list[Learnt]]:
        """Whose answer it is, where that is known, and the versions that learnt from it. Raises `NotFound`."""
        bare = canonical_inference_id(inference_id)
        if bare is None or not is_inference_of(self._current.snapshot.secret, tenant, bare):
            raise NotFound("No such inference was given to this tenant.", param="inference_id")
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            unit, parts = await lineage.of_inference(connection, tenant, bare)
            return unit, await _learnt(connection, tenant, parts)

    async def of_feedback(self, tenant: str, feedback_id: str) -> tuple[str | None, builtins.list[Learnt]]:
        """The same of one feedback. An unknown id, and one that was erased since, went into what the rows say."""
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            unit, parts = await lineage.of_feedback(connection, tenant, feedback_id)
            return unit, await _learnt(connection, tenant, parts)

    def unit(self, tenant: str, who: Who) -> str:
        """The user's hash. Raises `InvalidRequest` unless one name is given, and it can be one."""
        if (who.targeting_key is None) == (who.unit is None):
            raise InvalidRequest("Give a targeting_key or a unit.", param="targeting_key")
        if who.targeting_key is not None:
            return unit_of(self._current.snapshot.secret, tenant, who.targeting_key)
        if who.unit is None or _UNIT.match(who.unit) is None:
            raise InvalidRequest("A unit is 32 hex digits, as exports show it.", param="unit")
        return who.unit

    async def _require(self, connection: Connection, ref: AdapterRef) -> None:
        if await adapters.find(connection, ref) is None:
            raise unknown_adapter(ref)


async def _learnt(connection: Connection, tenant: str, parts: list[Part]) -> list[Learnt]:
    known = await aliases.of_tenant(connection, tenant) if parts else []
    return [Learnt(part, tuple(alias.name for alias in known if _serves(alias, part.ref))) for part in parts]


def _serves(alias: Alias, ref: AdapterRef) -> bool:
    return any(variant.ref == ref for variant in alias.variants)


async def _batches(file: Path) -> AsyncIterator[list[LineageRow]]:
    """Read off the event loop: a million lines must hold up nobody's tokens."""
    with file.open("rb") as lines:
        rows = read_lineage(lines)
        while batch := await asyncio.to_thread(lambda: list(islice(rows, lineage.PAGE))):
            yield batch
