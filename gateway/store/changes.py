"""What every change of the control plane has in common: one transaction of the change itself, its audit row, the next
snapshot version, and the notice that tells all workers to read it.

The version's row is locked first. So changes of the control plane happen one after the other, in the order of their
versions, and a rule that was checked inside a change still holds when it commits. They are rare and short; traffic
never comes here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.store.database import Connection, Database
from gateway.store.notices import SNAPSHOT


@dataclass(slots=True)
class Change:
    """A change under way. `version` is the snapshot version it makes, once committed. `detail` goes into the audit row:
    nouns and numbers, never keys or content."""

    connection: Connection
    version: int
    detail: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def change(db: Database, action: str, subject: str, *, tenant: str | None, actor: str) -> AsyncIterator[Change]:
    """Commit the block as one change: `actor` did `action` ("alias.promote") to `subject`, for `tenant` (None: for
    all).

    The block raising means that nothing happened, the audit row included. Raises `Unavailable`.
    """
    async with db.transaction() as connection:
        version = await connection.fetchval("UPDATE control_state SET version = version + 1 RETURNING version")
        under_way = Change(connection, version)
        yield under_way
        await note(connection, action, subject, under_way.detail, tenant=tenant, actor=actor)
        await connection.execute("SELECT pg_notify($1, $2)", SNAPSHOT, str(version))


async def note(
    connection: Connection, action: str, subject: str, detail: dict[str, Any], *, tenant: str | None, actor: str
) -> None:
    """Write the audit row of a change; of one that is in no snapshot, this is all it has in common with the others."""
    await connection.execute(
        "INSERT INTO audit (actor, tenant, action, subject, detail) VALUES ($1, $2, $3, $4, $5)",
        actor,
        tenant,
        action,
        subject,
        json.dumps(detail),
    )
