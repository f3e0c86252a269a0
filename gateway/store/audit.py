"""Reads the audit log. Rows are written by `changes.change`, in the transaction of what they tell about."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.store.database import Database


@dataclass(frozen=True, slots=True)
class Entry:
    """`actor` did `action` ("alias.promote") to `subject`; `tenant` is None for what concerns all."""

    id: int
    at: datetime
    actor: str
    tenant: str | None
    action: str
    subject: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries to show; None: whatever it is. `action` is one ("alias.promote") or all of a kind ("alias")."""

    action: str | None = None
    subject: str | None = None
    actor: str | None = None


async def entries(
    db: Database, tenant: str | None, limit: int, *, wanted: Wanted = Wanted(), before: int | None = None
) -> list[Entry]:
    """The newest first, at most `limit`, of ids below `before`: a tenant's own, or everybody's for None."""
    async with db.transaction(picture=True) as connection:
        rows = await connection.fetch(
            "SELECT id, at, actor, tenant, action, subject, detail FROM audit"
            " WHERE ($1::text IS NULL OR tenant = $1) AND ($3::bigint IS NULL OR id < $3)"
            " AND ($4::text IS NULL OR action = $4 OR split_part(action, '.', 1) = $4)"
            " AND ($5::text IS NULL OR subject = $5) AND ($6::text IS NULL OR actor = $6)"
            " ORDER BY id DESC LIMIT $2",
            tenant,
            limit,
            before,
            wanted.action,
            wanted.subject,
            wanted.actor,
        )
    return [Entry(**{**row, "detail": json.loads(row["detail"])}) for row in rows]


async def of_experiment(db: Database, tenant: str, experiment: str, limit: int) -> list[Entry]:
    """What was done to an experiment, and to its alias because of it: the newest first."""
    async with db.transaction(picture=True) as connection:
        rows = await connection.fetch(
            "SELECT id, at, actor, tenant, action, subject, detail FROM audit"
            " WHERE tenant = $1 AND (subject = $2 OR detail->>'experiment' = $2) ORDER BY id DESC LIMIT $3",
            tenant,
            experiment,
            limit,
        )
    return [Entry(**{**row, "detail": json.loads(row["detail"])}) for row in rows]
