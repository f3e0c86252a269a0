"""SQL for an experiment's results: traffic per variant, and the moments over units that statistics are made of.

The sums are made where the rows are, so a worker's memory does not grow with the experiment. It knows no statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.experiment import Experiment
from gateway.store.database import Database

# A client that named a version or a variant was not randomised, and is left out of the comparison. So is what was asked
# of a shadow's candidate, whose answer no client saw, and what was asked with a key for evaluations, by no user.
_RANDOMISED = """i.tenant = $1 AND i.experiment = $2 AND i.reason <> 'targeting_match' AND i.shadow_of IS NULL
  AND i.key_id <> ALL (ARRAY(SELECT id FROM api_keys WHERE tenant = $1 AND 'evaluate' = ANY (scopes)))"""

_TRAFFIC = f"""
SELECT variant, count(*) AS inferences, count(DISTINCT unit) AS units,
       count(*) FILTER (WHERE outcome NOT IN ('ok', 'client_error', 'disconnected')) AS errors,
       count(*) FILTER (WHERE outcome = 'disconnected') AS disconnected,
       avg(input_tokens)::float8 AS input_tokens, avg(output_tokens)::float8 AS output_tokens,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY ttft_ms) AS ttft_p50_ms
FROM inferences i WHERE {_RANDOMISED} GROUP BY variant
"""  # noqa: S608 — built from constants of this file

_SERVED = f"""
SELECT variant, served, count(*) AS inferences FROM inferences i WHERE {_RANDOMISED} GROUP BY variant, served
"""  # noqa: S608 — built from constants of this file

_PINNED = """
SELECT count(*) FROM inferences
WHERE tenant = $1 AND experiment = $2 AND reason = 'targeting_match' AND shadow_of IS NULL
"""

# The latest value per (inference or episode, metric, source) is the one that counts. An episode is one judgement, of
# the variant its first request in the experiment was assigned to.
_MOMENTS = f"""
WITH judged AS (
    SELECT DISTINCT ON (f.inference_id, f.source) i.variant, i.unit, f.number
    FROM inferences i JOIN feedback f ON f.inference_id = i.id AND f.tenant = i.tenant
    WHERE {_RANDOMISED} AND f.metric = $3 AND f.number IS NOT NULL
    ORDER BY f.inference_id, f.source, f.seq DESC
), conversations AS (
    SELECT DISTINCT ON (episode) episode, variant, unit
    FROM inferences i WHERE {_RANDOMISED} AND episode IS NOT NULL ORDER BY episode, created_at, id
), conversations_judged AS (
    SELECT DISTINCT ON (f.episode_id, f.source) c.variant, c.unit, f.number
    FROM conversations c JOIN feedback f ON f.tenant = $1 AND f.episode_id = c.episode
    WHERE f.metric = $3 AND f.number IS NOT NULL
    ORDER BY f.episode_id, f.source, f.seq DESC
), units AS (
    SELECT variant, unit, count(*)::float8 AS n, sum(number) AS total
    FROM (SELECT * FROM judged UNION ALL SELECT * FROM conversations_judged) AS judgements
    GROUP BY variant, unit
)
SELECT variant, count(*) AS units, sum(n)::bigint AS judgements, sum(total) AS total,
       coalesce(var_samp(n), 0) AS var_count, coalesce(var_samp(total), 0) AS var_total,
       coalesce(covar_samp(n, total), 0) AS covariance
FROM units GROUP BY variant
"""  # noqa: S608 — built from constants of this file


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went to one assigned variant. Tokens are means per inference, the time is in milliseconds."""

    inferences: int = 0
    units: int = 0
    errors: int = 0
    disconnected: int = 0
    input_tokens: float | None = None
    output_tokens: float | None = None
    ttft_p50_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Moments:
    """Over the judged units of one variant: moments of (judgements, their sum) per unit; variances are sample ones."""

    units: int
    judgements: int
    total: float
    var_count: float
    var_total: float
    covariance: float


async def traffic(database: Database, experiment: Experiment) -> dict[str, Traffic]:
    """By the name of the assigned variant."""
    async with database.transaction() as connection:
        rows = await connection.fetch(_TRAFFIC, experiment.tenant, experiment.id)
    return {row["variant"]: Traffic(**{k: v for k, v in row.items() if k != "variant"}) for row in rows}


async def served(database: Database, experiment: Experiment) -> dict[str, dict[str | None, int]]:
    """How often each version really answered, by assigned variant; `None` is "nothing was served"."""
    found: dict[str, dict[str | None, int]] = {}
    async with database.transaction() as connection:
        for row in await connection.fetch(_SERVED, experiment.tenant, experiment.id):
            found.setdefault(row["variant"], {})[row["served"]] = row["inferences"]
    return found


async def pinned(database: Database, experiment: Experiment) -> int:
    """How many requests named their version or variant themselves during the experiment."""
    async with database.transaction() as connection:
        return int(await connection.fetchval(_PINNED, experiment.tenant, experiment.id))


async def moments(database: Database, experiment: Experiment, metric: str) -> dict[str, Moments]:
    """By the name of the assigned variant; a variant that nobody has judged is missing."""
    async with database.transaction() as connection:
        rows = await connection.fetch(_MOMENTS, experiment.tenant, experiment.id, metric)
    return {row["variant"]: Moments(**{k: v for k, v in row.items() if k != "variant"}) for row in rows}
