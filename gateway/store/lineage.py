"""Rows of `lineage`: which training row went into which version, and which versions something went into."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Collection
from dataclasses import dataclass

from adapters.lineage import LineageRow
from adapters.ref import AdapterRef
from gateway.store.database import Connection, Database

PAGE = 1000
"""Rows in memory at once."""

_COLUMNS = ("tenant", "name", "version", "seq", "row", "inference_id", "unit", "feedback_ids")
_READ = """
SELECT seq, row, inference_id, unit, feedback_ids FROM lineage
WHERE tenant = $1 AND name = $2 AND version = $3 AND seq >= $4 ORDER BY seq LIMIT $5
"""

# A pair is learnt from two answers and names one of them; the other is found by the feedback about it, or by the
# preference that names it. A version that was trained on from another holds whatever that one holds.
_CONTAINING = """
WITH RECURSIVE said AS (
    SELECT array_agg(id) AS ids FROM (
        SELECT id FROM feedback WHERE kind = 'preference' AND words = ANY ($3::text[]) AND tenant = $1
        UNION ALL SELECT id FROM feedback WHERE inference_id = ANY ($3::text[]) AND tenant = $1
    ) AS f
), hits AS (
    SELECT name, version, seq FROM lineage WHERE tenant = $1 AND unit = $2
    UNION SELECT name, version, seq FROM lineage WHERE tenant = $1 AND inference_id = ANY ($3::text[])
    UNION SELECT name, version, seq FROM lineage WHERE tenant = $1 AND feedback_ids && $4::text[]
    UNION SELECT name, version, seq FROM lineage WHERE tenant = $1 AND feedback_ids && (SELECT ids FROM said)
), own AS (
    SELECT name, version, count(*) AS rows FROM hits GROUP BY name, version
), learnt AS (
    SELECT name, version FROM own
    UNION SELECT a.name, a.version FROM adapters a
    JOIN learnt l ON a.tenant = $1 AND a.continues = $1 || '/' || l.name || '@' || l.version
)
SELECT name, version, coalesce(rows, 0) AS rows, retired_at IS NOT NULL AS retired
FROM learnt LEFT JOIN own USING (name, version) JOIN adapters USING (name, version) WHERE tenant = $1
ORDER BY name, version
"""
_OF_UNIT = "SELECT id FROM inferences WHERE tenant = $1 AND unit = $2"
_UNIT = "SELECT unit FROM inferences WHERE tenant = $1 AND id = $2"
_UNIT_OF_FEEDBACK = """
SELECT i.unit FROM feedback f JOIN inferences i ON i.id = f.inference_id AND i.tenant = f.tenant
WHERE f.id = $2 AND f.tenant = $1
"""


@dataclass(frozen=True, slots=True)
class Part:
    """How many rows of something are in a version; 0 where it only goes on from one that has some."""

    ref: AdapterRef
    rows: int
    retired: bool


async def replace(connection: Connection, ref: AdapterRef, batches: AsyncIterable[Collection[LineageRow]]) -> int:
    """Make these the rows of a version, in place of any it has; how many. Of two at once, the second waits."""
    place = (ref.tenant, ref.name, ref.version)
    await connection.execute(
        "SELECT FROM adapters WHERE tenant = $1 AND name = $2 AND version = $3 FOR NO KEY UPDATE", *place
    )
    await connection.execute("DELETE FROM lineage WHERE tenant = $1 AND name = $2 AND version = $3", *place)
    written = 0
    async for batch in batches:
        records = [
            (*place, seq, row.row, row.inference_id, row.unit, row.feedback_ids)
            for seq, row in enumerate(batch, written)
        ]
        await connection.copy_records_to_table("lineage", records=records, columns=_COLUMNS)
        written += len(records)
    return written


async def rows(db: Database, ref: AdapterRef) -> AsyncIterator[LineageRow]:
    """In the order of the training rows; a page in memory at a time."""
    after = 0
    while True:
        async with db.transaction(picture=True) as connection:
            page = await connection.fetch(_READ, ref.tenant, ref.name, ref.version, after, PAGE)
        for row in page:
            yield LineageRow(
                row=row["row"], inference_id=row["inference_id"], unit=row["unit"], feedback_ids=row["feedback_ids"]
            )
        if len(page) < PAGE:
            return
        after = page[-1]["seq"] + 1


async def of_unit(connection: Connection, tenant: str, unit: str) -> list[Part]:
    """The versions that a user's rows went into, retired ones too."""
    mine = [row["id"] for row in await connection.fetch(_OF_UNIT, tenant, unit)]
    return await _containing(connection, tenant, unit=unit, inferences=mine)


async def of_inference(connection: Connection, tenant: str, inference_id: str) -> tuple[str | None, list[Part]]:
    """The user of an answer, where it is known, and the versions that learnt from it."""
    parts = await _containing(connection, tenant, inferences=[inference_id])
    return await connection.fetchval(_UNIT, tenant, inference_id), parts


async def of_feedback(connection: Connection, tenant: str, feedback_id: str) -> tuple[str | None, list[Part]]:
    """The same of a feedback; its user is that of the answer it is about."""
    parts = await _containing(connection, tenant, feedback=[feedback_id])
    return await connection.fetchval(_UNIT_OF_FEEDBACK, tenant, feedback_id), parts


async def _containing(
    connection: Connection,
    tenant: str,
    *,
    unit: str | None = None,
    inferences: Collection[str] = (),
    feedback: Collection[str] = (),
) -> list[Part]:
    found = await connection.fetch(_CONTAINING, tenant, unit, list(inferences), list(feedback))
    return [Part(AdapterRef(tenant, row["name"], row["version"]), row["rows"], row["retired"]) for row in found]
