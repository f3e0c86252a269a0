"""SQL for what tallies do not hold of an experiment: a median, and who named the version themselves."""

from __future__ import annotations

from gateway.experiment import Experiment
from gateway.store.database import Database
from gateway.store.marks import RANDOMISED

SAMPLE = 4_000
"""Requests that a median is taken of: those of the first users by their hash, which is to say, of users by chance."""

# The planner would rather sort all requests than fetch some thousand of them one by one: at five millions, for seconds.
_BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
_TTFT = f"""
SELECT variant, percentile_cont(0.5) WITHIN GROUP (ORDER BY ttft_ms) AS p50 FROM (
    SELECT variant, ttft_ms FROM inferences i WHERE experiment = $1 AND tenant = $2 AND {RANDOMISED.format(tenant="$2")}
    ORDER BY unit LIMIT {SAMPLE}
) AS sample GROUP BY variant
"""  # noqa: S608 — built from constants

MOST_PINNED = 100_000
"""More are not counted, so that the count takes milliseconds however many there are."""

# Nothing was drawn for them, so they belong to no experiment: the name and the time tell. By its own index, for which
# the condition must be the index's.
_PINNED = f"""
SELECT count(*) FROM (
    SELECT FROM inferences
    WHERE tenant = $1 AND alias = $2 AND created_at >= $3 AND created_at <= coalesce($4, 'infinity'::timestamptz)
      AND reason = 'targeting_match' AND shadow_of IS NULL
    LIMIT {MOST_PINNED}
) AS named
"""  # noqa: S608 — built from constants


async def ttft_p50(database: Database, experiment: Experiment) -> dict[str, float | None]:
    """The median of the milliseconds to the first token, by the name of the assigned variant."""
    async with database.transaction() as connection:
        await connection.execute(_BY_INDEX)
        rows = await connection.fetch(_TTFT, experiment.id, experiment.tenant)
    return {row["variant"]: row["p50"] for row in rows}


async def pinned(database: Database, experiment: Experiment) -> int:
    """How many requests to the alias, while the experiment ran, were dealt nothing: they named their version or variant
    themselves, or came from a tester. At most `MOST_PINNED`."""
    one = experiment
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        return int(await connection.fetchval(_PINNED, one.tenant, one.alias, one.started_at, one.ended_at))
