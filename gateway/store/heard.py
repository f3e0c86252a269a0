"""SQL for what feedback a round of training would find: counts by alias, over a tenant's newest feedback.

It knows no training method. Only what an answer with stored content got counts, since nothing else makes a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.store.database import Database

MOST = 100_000
"""The newest feedbacks that are looked at: each costs a look-up of its answer, and a reader waits for all."""

# A boolean metric that is better when smaller means the opposite of what it says.
_HEARD = """
WITH newest AS MATERIALIZED (
    SELECT f.inference_id, f.kind, f.number, f.words, f.correction, m.optimize
    FROM feedback f LEFT JOIN metrics m ON m.tenant = f.tenant AND m.name = f.metric
    WHERE f.tenant = $1 AND f.inference_id IS NOT NULL ORDER BY f.seq DESC LIMIT $2
)
SELECT i.alias, count(DISTINCT i.id) AS answers, count(DISTINCT i.unit) AS users,
       count(DISTINCT i.id) FILTER (WHERE f.correction IS NOT NULL OR f.kind = 'demonstration') AS corrections,
       count(DISTINCT i.id) FILTER (WHERE f.kind = 'boolean' AND (f.number = 1) = (f.optimize = 'max')) AS good,
       count(DISTINCT i.id) FILTER (WHERE f.kind = 'boolean' AND (f.number = 1) = (f.optimize = 'min')) AS bad,
       count(DISTINCT i.id) FILTER (WHERE f.kind = 'float') AS ratings,
       count(DISTINCT (i.id, f.words)) FILTER (WHERE f.kind = 'preference') AS preferences
FROM newest f JOIN inferences i ON i.id = f.inference_id AND i.tenant = $1
WHERE i.messages IS NOT NULL AND i.shadow_of IS NULL
  AND NOT EXISTS (SELECT FROM erasures e WHERE e.tenant = i.tenant AND e.unit = i.unit AND i.created_at <= e.erased_at)
GROUP BY i.alias ORDER BY i.alias
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """Of one alias: how many answers were judged, of how many users, and in which way. Each number counts answers;
    one answer can be among several."""

    alias: str
    answers: int
    users: int
    corrections: int
    good: int
    bad: int
    ratings: int
    preferences: int


async def heard(database: Database, tenant: str) -> list[Heard]:
    """By alias, of the newest `MOST` feedbacks on answers; feedback on whole conversations is not counted."""
    async with database.transaction(picture=True) as connection:
        rows = await connection.fetch(_HEARD, tenant, MOST)
    return [Heard(**row) for row in rows]
