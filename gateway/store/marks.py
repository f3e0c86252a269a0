"""Marks: "something was written about this", appended by whoever wrote it, taken away by whoever works it in.

A mark is appended in the transaction of its cause, so it is seen together with it, never before. Whoever takes marks
reads the raw rows in a later statement, so it sees the cause of each. That is all that keeps results whole. Feedback
that is written while its inference is being written sees no inference, nor the inference the feedback; but the mark of
the one that commits last is seen only when both are there. Work that is done twice, or for a mark whose cause is not
there yet, changes nothing, so nobody needs to know what others do, and a writer never waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.store.database import STATEMENT_SECONDS, Connection

SECONDS = 8 * STATEMENT_SECONDS
"""How long one statement may take where units are worked out: one user may have millions of rows."""

# Whether what an unexposed user does is of interest: it is the past of one who will be exposed, or is just being.
PAST_MATTERS = """EXISTS (
    SELECT FROM experiments e WHERE e.tenant = w.tenant AND e.alias = w.alias
      AND e.stage IN ('shadow', 'canary', 'experiment') AND e.plan['cuped_days'] > '0'
)"""

RANDOMISED = """i.reason <> 'targeting_match' AND i.shadow_of IS NULL
  AND i.key_id <> ALL (ARRAY(SELECT id FROM api_keys WHERE tenant = {tenant} AND 'evaluate' = ANY (scopes)))"""
"""A client that named a version or a variant was not randomised, and is left out of every comparison. So is what was
asked of a shadow's candidate, whose answer no client saw, and what was asked with a key for evaluations, by no user."""

UNIT = "CASE e.unit WHEN 'targeting_key' THEN i.unit WHEN 'episode' THEN coalesce(i.episode, i.id) ELSE i.id END"

_APPEND_USER = """
INSERT INTO marks (tenant, unit) VALUES ($1, $2)
"""
_APPEND_CONVERSATIONS = """
INSERT INTO marks (tenant, episode)
SELECT DISTINCT $1::text, episode FROM inferences WHERE tenant = $1 AND unit = $2 AND episode IS NOT NULL
"""
_TAKE = """
DELETE FROM marks WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM marks WHERE $2::text IS NULL OR experiment IS NULL OR experiment = $2 LIMIT $1
))
RETURNING tenant, inference, episode, unit
"""

_WHO = "i.id, i.tenant, i.alias, i.experiment, i.unit, i.episode, i.created_at"
_KNOWN = """SELECT FROM tallied d JOIN tallies t ON t.experiment = d.experiment
    WHERE d.experiment = e.id AND t.generation IN (d.generation, d.building) AND t.unit = {unit} LIMIT 1"""

# Whose figures rest on what is marked. The owner of a conversation is who asked first in it, so whoever was that before
# a marked inference came may not be so any more: the first one that is not marked is looked at, too.
_CONCERNED = f"""
WITH marked AS (
    SELECT i.* FROM unnest($1::text[], $2::text[]) AS m (tenant, id) CROSS JOIN LATERAL (
        SELECT {_WHO} FROM inferences i WHERE i.id = m.id AND i.tenant = m.tenant OFFSET 0) AS i
), of_users AS (
    SELECT i.* FROM unnest($5::text[], $6::text[]) AS m (tenant, unit) CROSS JOIN LATERAL (
        SELECT {_WHO} FROM inferences i WHERE i.unit = m.unit AND i.tenant = m.tenant OFFSET 0) AS i
), talks AS (
    SELECT * FROM unnest($3::text[], $4::text[]) AS m (tenant, episode)
    UNION
    SELECT i.tenant, i.episode FROM (SELECT DISTINCT tenant, episode FROM marked WHERE episode IS NOT NULL) AS i
    CROSS JOIN LATERAL (SELECT FROM feedback f WHERE f.tenant = i.tenant AND f.episode_id = i.episode LIMIT 1) AS said
), owners AS (
    SELECT DISTINCT ON (i.tenant, i.episode, i.experiment, i.id = ANY ($2)) i.* FROM talks CROSS JOIN LATERAL (
        SELECT {_WHO} FROM inferences i WHERE i.tenant = talks.tenant AND i.episode = talks.episode
          AND i.experiment IS NOT NULL AND {RANDOMISED.format(tenant="i.tenant")} OFFSET 0) AS i
    ORDER BY i.tenant, i.episode, i.experiment, i.id = ANY ($2), i.created_at, i.id
), touched AS (
    SELECT * FROM marked UNION ALL SELECT * FROM of_users UNION ALL SELECT * FROM owners
)
SELECT e.id AS experiment, {UNIT} AS unit FROM touched i JOIN experiments e ON e.id = i.experiment
UNION
SELECT e.id, i.unit FROM touched i
JOIN experiments e ON e.tenant = i.tenant AND e.alias = i.alias
 AND e.unit = 'targeting_key' AND e.plan['cuped_days'] > '0'
CROSS JOIN LATERAL ({_KNOWN.format(unit="i.unit")}) AS known
UNION
SELECT e.id, talks.episode FROM talks
JOIN experiments e ON e.tenant = talks.tenant AND e.unit = 'episode'
CROSS JOIN LATERAL ({_KNOWN.format(unit="talks.episode")}) AS known
"""  # noqa: S608 — built from constants of this file


@dataclass(slots=True)
class Taken:
    """Marks that were taken away: (tenant, id) of each kind, in two columns."""

    count: int = 0
    inferences: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    episodes: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))
    users: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))


async def append_user(connection: Connection, tenant: str, unit: str) -> None:
    """Everything of this user, and the conversations that they were part of."""
    await connection.execute(_APPEND_USER, tenant, unit)
    await connection.execute(_APPEND_CONVERSATIONS, tenant, unit)


async def take(connection: Connection, limit: int, *, experiment: str | None = None) -> Taken:
    """Up to `limit` marks; with `experiment`, only those that may concern it."""
    taken = Taken()
    for row in await connection.fetch(_TAKE, limit, experiment):
        taken.count += 1
        for value, (tenants, ids) in (
            (row["inference"], taken.inferences),
            (row["episode"], taken.episodes),
            (row["unit"], taken.users),
        ):
            if value is not None:
                tenants.append(row["tenant"])
                ids.append(value)
    return taken


async def concerned(connection: Connection, taken: Taken) -> dict[str, list[str]]:
    """The units whose figures may have changed, by experiment."""
    found: dict[str, list[str]] = {}
    columns = (*taken.inferences, *taken.episodes, *taken.users)
    for row in await connection.fetch(_CONCERNED, *columns, timeout=SECONDS):
        found.setdefault(row["experiment"], []).append(row["unit"])
    return found
