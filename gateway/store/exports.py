"""SQL for what judged inferences become outside: a page at a time, each inference once, with its best label for a
training row (`labelled`), or with everything that counts (`judged`).

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

# Per inference: of each metric and source only the latest word counts, and of a preference the latest about one loser.
# What a shadow's candidate said was said to nobody, so no judgement is about it.
_SAID = """
        SELECT DISTINCT ON (f.metric, f.source, own, CASE f.kind WHEN 'preference' THEN f.words END)
               f.id, f.metric, f.kind, f.number, f.words, f.correction, f.comment, f.source, f.created_at, f.seq, own,
               CASE WHEN own THEN coalesce(f.correction, CASE f.kind WHEN 'demonstration' THEN f.words END) END
                   AS written
        FROM (
            SELECT *, true AS own FROM feedback WHERE inference_id = i.id AND tenant = i.tenant
            UNION ALL
            SELECT *, false FROM feedback WHERE i.episode IS NOT NULL AND tenant = i.tenant AND episode_id = i.episode
        ) AS f
        WHERE $3::text IS NULL OR f.metric = $3
        ORDER BY f.metric, f.source, own, CASE f.kind WHEN 'preference' THEN f.words END, f.seq DESC
"""
_PAGE = """
WHERE i.tenant = $1 AND ($2::text IS NULL OR i.alias = $2) AND i.messages IS NOT NULL
  AND i.shadow_of IS NULL
  AND NOT EXISTS (SELECT FROM erasures e WHERE e.tenant = i.tenant AND e.unit = i.unit AND i.created_at <= e.erased_at)
  AND (i.created_at, i.id) > ($4, $5) AND i.created_at <= $6
ORDER BY i.created_at, i.id
LIMIT $7
"""

# A text somebody wrote beats a thumb; what was said about this answer beats what was said about the whole conversation;
# later beats earlier. A thumb needs a whole answer to be about.
_LABELLED = f"""
SELECT i.id, i.created_at, i.alias, i.variant, i.served, i.propensity, i.unit, i.messages::text AS messages, i.answer,
       best.id AS feedback_id, best.metric, best.kind, best.number, best.written
FROM inferences i
CROSS JOIN LATERAL (
    SELECT latest.*
    FROM ({_SAID}) AS latest
    WHERE latest.written IS NOT NULL OR (latest.kind = 'boolean' AND i.outcome = 'ok' AND i.answer <> '')
    ORDER BY latest.written IS NOT NULL DESC, latest.own DESC, latest.seq DESC
    LIMIT 1
) AS best
{_PAGE}
"""  # noqa: S608 — built from constants of this file

_JUDGED = f"""
SELECT i.id, i.created_at, i.alias, i.variant, i.served, i.experiment, i.propensity, i.unit, i.episode, i.outcome,
       i.messages::text AS messages, i.answer, said.feedback
FROM inferences i
CROSS JOIN LATERAL (
    SELECT json_agg(json_build_object('id', id, 'metric', metric, 'kind', kind, 'number', number, 'words', words,
                    'correction', correction, 'comment', comment, 'source', source, 'own', own,
                    'created_at', created_at) ORDER BY seq)::text AS feedback
    FROM ({_SAID}) AS latest
) AS said
{_PAGE.replace("WHERE", "WHERE said.feedback IS NOT NULL AND", 1)}
"""  # noqa: S608 — built from constants of this file
_LOSERS = """
SELECT id, outcome, answer, messages::text AS messages FROM inferences i
WHERE tenant = $1 AND id = ANY ($2::text[]) AND shadow_of IS NULL
  AND NOT EXISTS (SELECT FROM erasures e WHERE e.tenant = i.tenant AND e.unit = i.unit AND i.created_at <= e.erased_at)
"""
_SCOPE = "SELECT store_content, now() AS now FROM tenants WHERE name = $1"
_SMALLER = "SELECT name FROM metrics WHERE tenant = $1 AND optimize = 'min'"


@dataclass(frozen=True, slots=True)
class Labelled:
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
class Judged:
    """An inference with stored content and all feedback that counts, in the order of arrival: each a mapping of `id`,
    `metric`, `kind`, `number`, `words`, `correction`, `comment`, `source`, `created_at` (text) and `own` (about this
    answer, and not about its conversation)."""

    id: str
    created_at: datetime
    alias: str
    variant: str
    served: str | None
    experiment: str | None
    propensity: float
    unit: str
    episode: str | None
    outcome: str
    messages: list[dict[str, Any]]
    answer: str | None
    feedback: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Loser:
    """An answer that lost a comparison; None where its content is not kept."""

    outcome: str
    messages: list[dict[str, Any]] | None
    answer: str | None


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


async def labelled(
    database: Database,
    tenant: str,
    *,
    alias: str | None,
    metric: str | None,
    after: tuple[datetime, str],
    until: datetime,
) -> list[Labelled]:
    """The next page behind `after` (moment, inference id), oldest first; empty at the end."""
    async with database.transaction(picture=True) as connection:
        rows = await connection.fetch(_LABELLED, tenant, alias, metric, *after, until, PAGE)
    return [
        Labelled(**{**row, "messages": json.loads(row["messages"]), "kind": MetricKind(row["kind"])}) for row in rows
    ]


async def judged(
    database: Database,
    tenant: str,
    *,
    alias: str | None,
    metric: str | None,
    after: tuple[datetime, str],
    until: datetime,
) -> tuple[list[Judged], dict[str, Loser]]:
    """The next page as `labelled` has it, and by their ids the answers that lost against one of the page."""
    async with database.transaction(picture=True) as connection:
        rows = await connection.fetch(_JUDGED, tenant, alias, metric, *after, until, PAGE)
        page = [
            Judged(**{**row, "messages": json.loads(row["messages"]), "feedback": json.loads(row["feedback"])})
            for row in rows
        ]
        lost = {said["words"] for row in page for said in row.feedback if said["kind"] == MetricKind.PREFERENCE}
        losers = await connection.fetch(_LOSERS, tenant, sorted(lost)) if lost else ()
    return page, {row["id"]: _loser(row) for row in losers}


def _loser(row: Any) -> Loser:
    messages = None if row["messages"] is None else json.loads(row["messages"])
    return Loser(row["outcome"], messages, row["answer"])
