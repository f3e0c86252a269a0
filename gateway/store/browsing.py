"""SQL for looking at what was asked, answered and said, one tenant at a time: feedback page by page, one answer with
all that is known of it, pairs of answers to compare.

Each statement looks at a bounded number of rows, found by an index and taken from the newest on, so that a rare filter
costs a second look and never a statement that runs away. Content that its user had erased is nobody's to see, from the
moment of the erasure on. It knows nothing of pages as a browser shows them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gateway.domain import MetricKind
from gateway.store.database import Database

SPAN = 5000
"""Feedback that one statement looks at."""
SPANS = 4
"""Statements for one page: a filter that fits nothing among so many says so, and where to go on from."""
RECENT = 5000
"""Inferences among which pairs are looked for."""

_NEWEST = 2**63 - 1
_OUT_OF_ORDER = timedelta(minutes=5)
"""Feedback is timed by its gateway and numbered by the database: it may seem out of order by so much."""

_SPAN = """
SELECT min(seq) AS oldest, count(*) AS walked, max(created_at) AS newest
FROM (SELECT seq, created_at FROM feedback WHERE tenant = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3) AS span
"""
_FOUND = """
SELECT f.seq, f.id, f.created_at, f.metric, f.kind, f.number, f.words, f.inference_id, f.episode_id, f.comment,
       f.correction, f.source, i.alias, i.variant, i.served, i.experiment
FROM feedback f LEFT JOIN inferences i ON i.id = f.inference_id AND i.tenant IS NOT DISTINCT FROM f.tenant
WHERE f.tenant = $1 AND f.seq < $2 AND f.seq >= $3
  AND ($5::text IS NULL OR f.metric = $5) AND ($6::text IS NULL OR f.source = $6)
  AND ($7::timestamptz IS NULL OR f.created_at >= $7) AND ($8::boolean IS NULL OR (f.correction IS NOT NULL) = $8)
  AND ($9::float8 IS NULL OR f.number = $9)
  AND ($10::text IS NULL OR position(lower($10) IN lower(concat_ws(E'\\n', f.words, f.comment, f.correction))) > 0)
  AND ($11::text IS NULL OR i.alias = $11) AND ($12::text IS NULL OR i.variant = $12)
  AND ($13::text IS NULL OR i.served = $13)
ORDER BY f.seq DESC LIMIT $4
"""

_OWN = "tenant IS NOT DISTINCT FROM $1"  # rows are found by their ids, and whose they are is only checked
_ERASED = (
    "EXISTS (SELECT FROM erasures e WHERE e.tenant = i.tenant AND e.unit = i.unit AND i.created_at <= e.erased_at)"
)
_ANSWERS = f"""
SELECT id, created_at, key_id, endpoint, alias, alias_revision, experiment, variant, assigned, served, reason,
       propensity, unit, episode, stream, params::text AS params, status, outcome, finish_reason, input_tokens,
       output_tokens, ttft_ms, duration_ms, shadow_of,
       CASE WHEN NOT {_ERASED} THEN messages::text END AS messages, CASE WHEN NOT {_ERASED} THEN answer END AS answer
FROM inferences i WHERE id = ANY ($2::text[]) AND {_OWN}
"""  # noqa: S608 — built from constants of this file
_CONVERSATION = "SELECT id FROM inferences WHERE tenant = $1 AND episode = $2 ORDER BY created_at, id LIMIT $3"
_ABOUT = f"""
SELECT seq, id, created_at, metric, kind, number, words, inference_id, episode_id, comment, correction, source
FROM (
    SELECT * FROM feedback WHERE inference_id = $2 AND {_OWN}
    UNION ALL SELECT * FROM feedback WHERE tenant = $1 AND episode_id = $3
    UNION ALL SELECT * FROM feedback WHERE kind = 'preference' AND words = $2 AND {_OWN}
) AS f ORDER BY seq LIMIT 500
"""  # noqa: S608 — built from constants of this file

# What a shadow's candidate said counts for no judgement (exports.py). Of each prompt and version the newest answer.
_PAIRS = f"""
WITH recent AS MATERIALIZED (
    SELECT * FROM inferences WHERE tenant = $1 ORDER BY created_at DESC, id DESC LIMIT $2
), answers AS (
    SELECT DISTINCT ON (md5(messages::text), served) md5(messages::text) AS prompt, served, id, created_at
    FROM recent i
    WHERE messages IS NOT NULL AND answer <> '' AND outcome = 'ok' AND shadow_of IS NULL AND NOT {_ERASED}
    ORDER BY md5(messages::text), served, created_at DESC, id DESC
)
SELECT a.id AS one, b.id AS other FROM answers a JOIN answers b ON a.prompt = b.prompt AND a.served < b.served
WHERE NOT EXISTS (
    SELECT FROM feedback f WHERE f.inference_id IN (a.id, b.id) AND f.kind = 'preference' AND f.words IN (a.id, b.id)
)
ORDER BY greatest(a.created_at, b.created_at) DESC LIMIT $3
"""  # noqa: S608 — built from constants of this file


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which feedback to show; None: whatever it is. `number` is the value of a boolean (0 or 1) or of a number, `text`
    a part of its words, comment or correction, `version` what answered ("acme/support@1", "base")."""

    alias: str | None = None
    variant: str | None = None
    version: str | None = None
    metric: str | None = None
    source: str | None = None
    number: float | None = None
    text: str | None = None
    since: datetime | None = None
    corrected: bool | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """One feedback, and of the answer it is about what is known: nothing of a conversation's, or before its row is
    written. Exactly one of `number` and `words` is set; `seq` is the order of arrival."""

    seq: int
    id: str
    created_at: datetime
    metric: str
    kind: MetricKind
    number: float | None
    words: str | None
    inference_id: str | None
    episode_id: str | None
    comment: str | None
    correction: str | None
    source: str | None
    alias: str | None = None
    variant: str | None = None
    served: str | None = None
    experiment: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """`older` is where the next page begins; None at the end. `looked_at`: so many were gone through for this one."""

    found: Sequence[Said]
    older: int | None
    looked_at: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One inference, as `domain.Inference` has it. `messages` and `answer` are None where they are not kept."""

    id: str
    created_at: datetime
    key_id: str
    endpoint: str
    alias: str
    alias_revision: int
    experiment: str | None
    variant: str
    assigned: str
    served: str | None
    reason: str
    propensity: float
    unit: str
    episode: str | None
    stream: bool
    params: dict[str, Any]
    status: int
    outcome: str
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    ttft_ms: float | None
    duration_ms: float | None
    shadow_of: str | None
    messages: list[dict[str, Any]] | None
    answer: str | None


async def feedback(
    database: Database, tenant: str, wanted: Wanted, *, before: int | None = None, limit: int = 50, span: int = SPAN
) -> Page:
    """The newest first, from `before` (a page's `older`) on. A page can be short, or empty, before the end: then the
    filter fitted nothing more among `span * SPANS`."""
    place, found, looked_at = before or _NEWEST, list[Said](), 0
    said = (wanted.metric, wanted.source, wanted.since, wanted.corrected, wanted.number, wanted.text)
    filters = (*said, wanted.alias, wanted.variant, wanted.version)
    for _ in range(SPANS):
        async with database.transaction(picture=True) as connection:
            walk = await connection.fetchrow(_SPAN, tenant, place, span)
            if not walk["walked"] or (wanted.since and walk["newest"] < wanted.since - _OUT_OF_ORDER):
                return Page(found, None, looked_at)
            more = limit - len(found)
            rows = await connection.fetch(_FOUND, tenant, place, walk["oldest"], more, *filters)
        found += [_said(row) for row in rows]
        if len(found) == limit:
            return Page(found, found[-1].seq, looked_at + walk["walked"])
        looked_at, place = looked_at + walk["walked"], walk["oldest"]
        if walk["walked"] < span:
            return Page(found, None, looked_at)
    return Page(found, place, looked_at)


async def answers(database: Database, tenant: str, ids: Sequence[str]) -> list[Answer]:
    """The tenant's inferences among `ids`, in that order: others', and those not written yet, are left out."""
    async with database.transaction(picture=True) as connection:
        rows = {row["id"]: _answer(row) for row in await connection.fetch(_ANSWERS, tenant, list(ids))}
    return [rows[one] for one in ids if one in rows]


async def conversation(database: Database, tenant: str, episode: str, *, limit: int = 100) -> list[Answer]:
    """The inferences of a conversation, the oldest first."""
    async with database.transaction(picture=True) as connection:
        ids = [row["id"] for row in await connection.fetch(_CONVERSATION, tenant, episode, limit)]
    return await answers(database, tenant, ids)


async def said_about(database: Database, tenant: str, answer: Answer) -> list[Said]:
    """All feedback on an answer, on its conversation, and preferences that it lost, in the order of arrival."""
    async with database.transaction(picture=True) as connection:
        return [_said(row) for row in await connection.fetch(_ABOUT, tenant, answer.id, answer.episode)]


async def pairs(database: Database, tenant: str, *, limit: int = 20) -> list[tuple[str, str]]:
    """Ids of two answers of different versions to the same messages, among the `RECENT` newest, that nobody has
    compared yet; the newest first."""
    async with database.transaction(picture=True) as connection:
        rows = await connection.fetch(_PAIRS, tenant, RECENT, limit)
    return [(row["one"], row["other"]) for row in rows]


def _said(row: Any) -> Said:
    return Said(**{**row, "kind": MetricKind(row["kind"])})


def _answer(row: Any) -> Answer:
    messages = None if row["messages"] is None else json.loads(row["messages"])
    return Answer(**{**row, "params": json.loads(row["params"]), "messages": messages})
