"""SQL for what a shadow's candidates have shown: their answers beside those that clients got to the same requests.

The sums are made where the rows are. It knows nothing of engines or of which shadow is set now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.store.database import Database

MOST = 100_000
"""The newest mirrored requests that are looked at: each costs a look-up of its original, and the reader waits for all.
Measured: 0.5 to 1.1 s for so many."""

# Times and lengths are compared over the pairs in which both answered: what a failed request took tells nothing. The
# original may be missing, for the recorder drops what the database cannot take; the candidate's failure still counts.
_COMPARED = """
WITH mirrored AS MATERIALIZED (
    SELECT assigned, created_at, outcome, duration_ms, output_tokens, shadow_of FROM inferences
    WHERE tenant = $1 AND alias = $2 AND shadow_of IS NOT NULL AND created_at >= $4 ORDER BY created_at DESC LIMIT $3
), paired AS (
    SELECT m.*, o.duration_ms AS original_ms, o.output_tokens AS original_tokens,
           m.outcome = 'ok' AND o.outcome = 'ok' AS answered
    FROM mirrored m LEFT JOIN inferences o ON o.id = m.shadow_of AND o.tenant = $1
)
SELECT assigned AS ref, count(*) AS requests, min(created_at) AS since, max(created_at) AS until,
       count(*) FILTER (WHERE outcome <> 'ok') AS errors,
       count(*) FILTER (WHERE outcome = 'timeout') AS timeouts,
       count(*) FILTER (WHERE answered) AS pairs,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE answered) AS p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms) FILTER (WHERE answered) AS p95_ms,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY original_ms) FILTER (WHERE answered) AS original_p50_ms,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY original_ms) FILTER (WHERE answered) AS original_p95_ms,
       (avg(output_tokens) FILTER (WHERE answered))::float8 AS output_tokens,
       (avg(original_tokens) FILTER (WHERE answered))::float8 AS original_output_tokens
FROM paired GROUP BY assigned ORDER BY max(created_at) DESC
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """One candidate. `ref` is its version's text, or "base"; `requests` is what it was asked between `since` and
    `until`, `errors` (`timeouts` among them) what it did not answer.

    Times in milliseconds and mean output tokens are over the `pairs` in which candidate and original both answered, and
    None where there is none. An original's time includes its client's reading.
    """

    ref: str
    requests: int
    since: datetime
    until: datetime
    errors: int
    timeouts: int
    pairs: int
    p50_ms: float | None
    p95_ms: float | None
    original_p50_ms: float | None
    original_p95_ms: float | None
    output_tokens: float | None
    original_output_tokens: float | None


async def compared(database: Database, tenant: str, alias: str, *, since: datetime | None = None) -> list[Compared]:
    """Each candidate among the newest `MOST` mirrored requests of an alias (`since` then, if given), the latest first.

    An experiment asks since its start: what a shadow of before came to is no part of it."""
    since = since or datetime.min.replace(tzinfo=UTC)
    async with database.transaction(picture=True) as connection:
        return [Compared(**row) for row in await connection.fetch(_COMPARED, tenant, alias, MOST, since)]
