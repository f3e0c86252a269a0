"""Rows of `preparations`: the versions that swaps under way want resident. Each runs out by itself if its swap died."""

from __future__ import annotations

from collections.abc import Collection

from adapters.ref import AdapterRef
from gateway.store.changes import change
from gateway.store.database import Connection, Database


async def insert(connection: Connection, swap: str, refs: Collection[AdapterRef], *, seconds: float) -> None:
    """Have `refs` prepared for the swap of this id, until it ends or `seconds` have passed."""
    await connection.executemany(
        "INSERT INTO preparations (id, ref, expires_at) VALUES ($1, $2, now() + make_interval(secs => $3))",
        [(f"{swap}/{number}", str(ref), seconds) for number, ref in enumerate(sorted(refs))],
    )


async def remove(connection: Connection, swap: str) -> int:
    """How many the swap still had."""
    status = await connection.execute("DELETE FROM preparations WHERE starts_with(id, $1)", f"{swap}/")
    return int(status.split()[-1])


async def refs(connection: Connection) -> frozenset[AdapterRef]:
    return frozenset(AdapterRef.parse(row["ref"]) for row in await connection.fetch("SELECT ref FROM preparations"))


async def sweep(db: Database) -> None:
    """Remove what ran out, as a change like any other: until then a snapshot version has one meaning only."""
    async with db.transaction(picture=True) as connection:
        if not await connection.fetchval("SELECT count(*) FROM preparations WHERE expires_at <= now()"):
            return
    async with change(db, "swap.expire", "preparations", tenant=None, actor="gateway") as sweeping:
        rows = await sweeping.connection.fetch("DELETE FROM preparations WHERE expires_at <= now() RETURNING ref")
        sweeping.detail["refs"] = [row["ref"] for row in rows]
