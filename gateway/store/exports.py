"""SQL for turning judged inferences into training rows: a page at a time, each inference once, with its best label.

Pages, each in a transaction of its own, and not one long cursor: a slow reader then holds neither one of the few
connections nor back the vacuum. It knows nothing of training formats.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.domain import MetricKind
from gateway.store.database import Database

PAGE = 200
"""Inferences in memory at once."""

# Per inference: of each metric and source only the latest word counts. A text somebody wrote beats a thumb; what was
# said about this answer beats what was said about the whole conversation; later beats earlier. A thumb needs a whole
# answer to be about. What a shadow's candidate said was said to nobody, so no judgement is about it.
_PAGE = """
SELECT i.id, i.created_at, i.alias, i.variant, i.served, i.propensity, i.unit, i.messages::text AS messages, i.answer,
       best.id AS feedback_id, best.metric, best.kind, best.number, best.written
FROM inferences i
CROSS JOIN LATERAL (
    SELECT latest.*
    FROM (
        SELECT DISTINCT ON (f.metric, f.source, own) f.id, f.metric, f.kind, f.number, f.seq, own,
               CASE WHEN own THEN coalesce(f.correction, CASE f.kind WHEN 'demonstration' THEN f.words END) END
                   AS written
        FROM (
            SELECT *, true AS own FROM feedback WHERE inference_id = i.id AND tenant = i.tenant
            UNION ALL
            SELECT *, false FROM feedback WHERE i.episode IS NOT NULL AND tenant = i.tenant AND episode_id = i.episode
        ) AS f
        WHERE $3::text IS NULL OR f.metric = $3
        ORDER BY f.metric, f.source, own, f.seq DESC
    ) AS latest
    WHERE latest.written IS NOT NULL OR (latest.kind = 'boolean' AND i.outcome = 'ok' AND i.answer <> '')
    ORDER BY latest.written IS NOT NULL DESC, latest.own DESC, latest.seq DESC
    LIMIT 1
) AS best
WHERE i.tenant = $1 AND ($2::text IS NULL OR i.alias = $2) AND i.messages IS NOT NULL
  AND i.shadow_of IS NULL
  AND (i.created_at, i.id) > ($4, $5) AND i.created_at <= $6
ORDER BY i.created_at, i.id
LIMIT $7
"""
_SCOPE = "SELECT store_content, now() AS now FROM tenants WHERE name = $1"
_SMALLER = "SELECT name FROM metrics WHERE tenant = $1 AND optimize = 'min'"


@dataclass(frozen=True, slots=True)
class Judged:
    """An inference with stored content and the feedback that labels it; `written` is the ideal answer, if any."""

    id: str
    created_at: datetime
    alias: str
    variant: str
    served: str | None
    propensity: float
    unit: str
    messages: list[dict[str, Any]]
    answer: str | None
    feedback_id: str
    metric: str
    kind: MetricKind
    number: float | None
    written: str | None


@dataclass(frozen=True, slots=True)
class Extent:
    """What an export covers: whether the tenant keeps content at all, up to which moment, and which metrics are
    better when smaller."""

    store_content: bool
    until: datetime
    smaller_is_better: frozenset[str]


async def extent(database: Database, tenant: str) -> Extent | None:
    """As of now; None for an unknown tenant."""
    async with database.transaction(picture=True) as connection:
        row = await connection.fetchrow(_SCOPE, tenant)
        if row is None:
            return None
        smaller = await connection.fetch(_SMALLER, tenant)
    return Extent(row["store_content"], row["now"], frozenset(each["name"] for each in smaller))


async def judged(
    database: Database,
    tenant: str,
    *,
    alias: str | None,
    metric: str | None,
    after: tuple[datetime, str],
    until: datetime,
) -> list[Judged]:
    """The next page behind `after` (moment, inference id), oldest first; empty at the end."""
    async with database.transaction(picture=True) as connection:
        rows = await connection.fetch(_PAGE, tenant, alias, metric, *after, until, PAGE)
    return [_judged(row) for row in rows]


def _judged(row: Any) -> Judged:
    values = dict(row)
    values["messages"] = json.loads(values["messages"])
    values["kind"] = MetricKind(values["kind"])
    return Judged(**values)
