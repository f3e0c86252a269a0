"""Units that could not be worked out: kept apart, so that they hold up nobody else, and tried again.

What failed as a batch is tried again in ever smaller pieces, until only what is unsound is left; that is tried again
once an hour. Whoever holds a row here has the lock of `tallies.py`, as whoever takes marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from gateway.store.database import Connection, Database

PIECE = 100
"""Units of a batch that are tried again together; of a piece that failed, each is tried alone."""

AGAIN = timedelta(hours=1)

_PUT = """
INSERT INTO set_aside (experiment, unit, together, again_at)
SELECT $1, unit, $3, now() + $4 FROM unnest($2::text[]) AS unit
ON CONFLICT (experiment, unit) DO UPDATE SET together = EXCLUDED.together, again_at = EXCLUDED.again_at
"""
_OTHERS = """
SELECT unit FROM unnest($2::text[]) WITH ORDINALITY AS u (unit, at)
WHERE NOT EXISTS (SELECT FROM set_aside s WHERE s.experiment = $1 AND s.unit = u.unit) ORDER BY at
"""
_DUE = """
SELECT experiment, together FROM set_aside WHERE again_at <= now() AND ($1::text IS NULL OR experiment = $1)
ORDER BY again_at LIMIT 1
"""
_TAKE = """
DELETE FROM set_aside WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM set_aside WHERE experiment = $1 AND together = $2 AND again_at <= now() LIMIT $3
))
RETURNING unit
"""


async def put(connection: Connection, experiment_id: str, units: Sequence[str]) -> None:
    """These failed together: a single one can wait, of several most are sound."""
    await connection.execute(_PUT, experiment_id, units, len(units), AGAIN if len(units) == 1 else timedelta())


async def others(connection: Connection, experiment_id: str, units: Sequence[str]) -> list[str]:
    """Those that are not set aside. The rest has its own turn later, and will see all that can be seen now."""
    return [row["unit"] for row in await connection.fetch(_OTHERS, experiment_id, units)]


async def take(connection: Connection, experiment: str | None = None) -> tuple[str, list[str]] | None:
    """An experiment (this one, if it is named), and units of it whose turn it is, which are no longer set aside."""
    due = await connection.fetchrow(_DUE, experiment)
    if due is None:
        return None
    size = PIECE if due["together"] > PIECE else 1
    rows = await connection.fetch(_TAKE, due["experiment"], due["together"], size)
    return due["experiment"], [row["unit"] for row in rows]


async def hurry(connection: Connection, experiment_id: str) -> None:
    """Whatever there is of this experiment is due."""
    await connection.execute("UPDATE set_aside SET again_at = now() WHERE experiment = $1", experiment_id)


async def count(database: Database, experiment: str | None = None) -> int:
    """How many there are, of one experiment or of all."""
    query = "SELECT count(*) FROM set_aside WHERE $1::text IS NULL OR experiment = $1"
    async with database.transaction() as connection:
        return int(await connection.fetchval(query, experiment))
