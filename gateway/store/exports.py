"""SQL for what judged inferences become outside: span by span of time, each judged inference once, with all feedback on
it that counts.

Spans and pages, each in a transaction of its own, and not one long cursor: a slow reader then holds neither one of the
few connections nor back the vacuum. No statement looks at more than a span, and each finds its rows by their keys: how
much was never judged in between costs time, and no statement's. It knows nothing of training formats.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.domain import MetricKind
from gateway.store.database import Connection, Database

SPAN = 2000
"""Inferences that are looked at in one statement."""
PAGE = 200
"""Judged ones in memory at once."""

# A table that has grown since its statistics were made would be read whole, and sorted, for each span.
_IN_ORDER = "SET LOCAL enable_bitmapscan = off"
_SPAN = """
SELECT id, created_at, episode FROM inferences
WHERE tenant = $1 AND (created_at, id) > ($2, $3) AND created_at <= $4 ORDER BY created_at, id LIMIT $5
"""

# For the same reason rows are found by their ids, and whose they are is only checked: a plain `=` could become the way
# to find them.
_OWN = "tenant IS NOT DISTINCT FROM $1"
_JUDGED = f"""
SELECT inference_id AS about FROM feedback WHERE inference_id = ANY ($2::text[]) AND {_OWN}
  AND ($4::text IS NULL OR metric = $4)
UNION SELECT episode_id FROM feedback WHERE tenant = $1 AND episode_id = ANY ($3::text[])
  AND ($4::text IS NULL OR metric = $4)
"""  # noqa: S608 — built from constants of this file

# What a shadow's candidate said was said to nobody, so no judgement is about it.
_KEPT = f"""
id = ANY ($2::text[]) AND {_OWN} AND shadow_of IS NULL
  AND NOT EXISTS (SELECT FROM erasures e WHERE e.tenant = i.tenant AND e.unit = i.unit AND i.created_at <= e.erased_at)
"""
_ROWS = f"""
SELECT id, created_at, alias, variant, served, experiment, propensity, unit, episode, outcome,
       messages::text AS messages, answer
FROM inferences i WHERE {_KEPT} AND ($3::text IS NULL OR alias = $3) AND messages IS NOT NULL ORDER BY created_at, id
"""  # noqa: S608 — built from constants of this file
_LOSERS = f"SELECT id, outcome, answer, messages::text AS messages FROM inferences i WHERE {_KEPT}"  # noqa: S608 — as above

# Of each metric and source only the latest word counts, and of a preference the latest about one loser.
_SAID = f"""
SELECT DISTINCT ON (about, metric, source, CASE kind WHEN 'preference' THEN words END)
       about, own, id, metric, kind, number, words, correction, comment, source, created_at, seq
FROM (
    SELECT *, inference_id AS about, true AS own FROM feedback WHERE inference_id = ANY ($2::text[]) AND {_OWN}
    UNION ALL
    SELECT *, episode_id, false FROM feedback WHERE tenant = $1 AND episode_id = ANY ($3::text[])
) AS f
WHERE $4::text IS NULL OR metric = $4
ORDER BY about, metric, source, CASE kind WHEN 'preference' THEN words END, seq DESC
"""  # noqa: S608 — built from constants of this file
_SCOPE = "SELECT store_content, now() AS now FROM tenants WHERE name = $1"
_SMALLER = "SELECT name FROM metrics WHERE tenant = $1 AND optimize = 'min'"


@dataclass(frozen=True, slots=True)
class Said:
    """One feedback that counts; `own` is false where it is about the whole conversation. Later ones have a larger
    `seq`."""

    own: bool
    id: str
    metric: str
    kind: MetricKind
    number: float | None
    words: str | None
    correction: str | None
    comment: str | None
    source: str | None
    created_at: datetime
    seq: int


@dataclass(frozen=True, slots=True)
class Loser:
    """An answer that lost a comparison; None where its content is not kept."""

    outcome: str
    messages: list[dict[str, Any]] | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class Judged:
    """An inference with stored content and all feedback that counts, in the order of arrival; `losers` has the answers
    that lost against it, by their ids, as far as they are kept."""

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
    feedback: tuple[Said, ...]
    losers: dict[str, Loser]

    @property
    def whole(self) -> bool:
        """Whether the answer was given, to its end."""
        return self.outcome == "ok" and bool(self.answer)


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
    database: Database, tenant: str, *, alias: str | None, metric: str | None, since: datetime, until: datetime
) -> AsyncIterator[Judged]:
    """The tenant's judged inferences of this time, oldest first."""
    place = (since, "")
    while True:
        async with database.transaction(picture=True) as connection:
            await connection.execute(_IN_ORDER)
            span = await connection.fetch(_SPAN, tenant, *place, until, SPAN)
            found = await _judged_among(connection, tenant, span, metric)
        for first in range(0, len(found), PAGE):
            async with database.transaction(picture=True) as connection:
                page = await _page(connection, tenant, found[first : first + PAGE], alias, metric)
            for row in page:
                yield row
        if len(span) < SPAN:
            return
        place = (span[-1]["created_at"], span[-1]["id"])


async def _judged_among(connection: Connection, tenant: str, span: Sequence[Any], metric: str | None) -> list[str]:
    ids, episodes = [row["id"] for row in span], _episodes(span)
    about = {row["about"] for row in await connection.fetch(_JUDGED, tenant, ids, episodes, metric)} if span else set()
    return [row["id"] for row in span if row["id"] in about or row["episode"] in about]


async def _page(
    connection: Connection, tenant: str, ids: Sequence[str], alias: str | None, metric: str | None
) -> list[Judged]:
    rows = await connection.fetch(_ROWS, tenant, ids, alias)
    said: dict[tuple[bool, str], list[Said]] = {}
    for row in await connection.fetch(_SAID, tenant, [row["id"] for row in rows], _episodes(rows), metric):
        values = {name: value for name, value in row.items() if name != "about"}
        one = Said(**{**values, "kind": MetricKind(row["kind"])})
        said.setdefault((one.own, row["about"]), []).append(one)
    wanted = {one.words for some in said.values() for one in some if one.kind is MetricKind.PREFERENCE}
    losers = await _losers(connection, tenant, wanted) if wanted else {}
    page = []
    for row in rows:
        feedback = [*said.get((True, row["id"]), ()), *said.get((False, row["episode"]), ())]
        if feedback:
            feedback.sort(key=lambda one: one.seq)
            mine = {one.words: losers[one.words] for one in feedback if one.words in losers}
            messages = json.loads(row["messages"])
            page.append(Judged(**{**row, "messages": messages}, feedback=tuple(feedback), losers=mine))
    return page


async def _losers(connection: Connection, tenant: str, ids: Collection[str | None]) -> dict[str | None, Loser]:
    found = {}
    for row in await connection.fetch(_LOSERS, tenant, list(ids)):
        messages = None if row["messages"] is None else json.loads(row["messages"])
        found[row["id"]] = Loser(row["outcome"], messages, row["answer"])
    return found


def _episodes(rows: Sequence[Any]) -> list[str]:
    return list({row["episode"] for row in rows if row["episode"] is not None})
