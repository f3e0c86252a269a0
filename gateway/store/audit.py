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


async def entries(db: Database, tenant: str | None, limit: int) -> list[Entry]:
    """The newest first, at most `limit`: a tenant's own, or everybody's for None."""
    async with db.transaction(picture=True) as connection:
        rows = await connection.fetch(
            "SELECT id, at, actor, tenant, action, subject, detail FROM audit"
            " WHERE $1::text IS NULL OR tenant = $1 ORDER BY id DESC LIMIT $2",
            tenant,
            limit,
        )
    return [Entry(**{**row, "detail": json.loads(row["detail"])}) for row in rows]
