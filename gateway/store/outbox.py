"""Rows of `outbox`: messages that a receiver elsewhere must get at least once. It knows neither HTTP nor what they say.

Whoever sends one claims it first, for a while: if he dies before its fate is written down, it is due again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.store.database import Connection, Database

_CLAIM = """
UPDATE outbox SET attempts = attempts + 1, due_at = now() + make_interval(secs => $1)
WHERE id = (SELECT id FROM outbox WHERE due_at <= now() ORDER BY due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, body, created_at, attempts
"""


@dataclass(frozen=True, slots=True)
class Message:
    """`attempts` counts the one that it was claimed for."""

    id: str
    body: str
    created_at: datetime
    attempts: int


async def put(connection: Connection, message_id: str, body: str) -> None:
    """In the transaction of what it tells about, so that the two are never apart."""
    await connection.execute("INSERT INTO outbox (id, body) VALUES ($1, $2)", message_id, body)


async def claim(db: Database, seconds: float) -> Message | None:
    """The message that is due for the longest time, for nobody else during `seconds`; None when none is due."""
    async with db.transaction() as connection:
        row = await connection.fetchrow(_CLAIM, seconds)
    return Message(**row) if row else None


async def remove(db: Database, message_id: str) -> None:
    """It was taken, or is given up."""
    async with db.transaction() as connection:
        await connection.execute("DELETE FROM outbox WHERE id = $1", message_id)


async def postpone(db: Database, message_id: str, seconds: float) -> None:
    """It was not taken: due again in `seconds`."""
    async with db.transaction() as connection:
        await connection.execute(
            "UPDATE outbox SET due_at = now() + make_interval(secs => $2) WHERE id = $1", message_id, seconds
        )


async def waiting(db: Database) -> int:
    """How many have not been taken yet."""
    async with db.transaction() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM outbox"))
