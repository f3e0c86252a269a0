"""Rows of `evaluations`, one for each experiment, and of `looks`, its history: what the evaluation found and has told.

Verdicts are JSON here: it knows no statistics, and decides nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.store.database import Connection, Database

_KEEP = """
INSERT INTO evaluations (experiment, at, word, verdict, looked_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (experiment) DO UPDATE SET (at, word, verdict, looked_at) =
    (EXCLUDED.at, EXCLUDED.word, EXCLUDED.verdict, coalesce(EXCLUDED.looked_at, evaluations.looked_at))
"""
_STATE = "SELECT experiment, at, stage, word, looked_at, weighed FROM evaluations WHERE experiment = $1"
_UNTOLD = """
SELECT e.id FROM experiments e LEFT JOIN evaluations v ON v.experiment = e.id
WHERE v.stage IS DISTINCT FROM e.stage ORDER BY e.started_at, e.id
"""
# The newest first, so that a limit keeps the end of the story.
_LOOKS = "SELECT at, word, verdict FROM looks WHERE experiment = $1 ORDER BY at DESC LIMIT $2"
# A tenant's newest rows first; the one that is looked for is among them, for the change has just been made.
_STEPS = [f"experiment.{step}" for step in ("start", "advance", "promote", "rollback", "stop")]
_DONE = """
SELECT actor, action, detail FROM (SELECT * FROM audit WHERE tenant = $1 ORDER BY id DESC LIMIT 1000) AS newest
WHERE subject = $2 AND detail->>'stage' = $3 AND action = ANY ($4::text[]) ORDER BY id DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class State:
    """What is known and told of an experiment. `stage` and `word` are as they were told last; `looked_at` is the newest
    kept look's time, `weighed` the number of units when its weights were drawn last."""

    experiment: str
    at: datetime
    stage: str | None
    word: str | None
    looked_at: datetime | None
    weighed: int


@dataclass(frozen=True, slots=True)
class Done:
    """Who did what, as the audit log has it."""

    actor: str
    action: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Look:
    """One look that was kept."""

    at: datetime
    word: str
    verdict: dict[str, Any]


async def state(connection: Connection, experiment_id: str, *, lock: bool = False) -> State | None:
    """None before the first evaluation. With `lock`, nobody else changes it until the transaction ends."""
    row = await connection.fetchrow(f"{_STATE} FOR UPDATE" if lock else _STATE, experiment_id)
    return State(**row) if row else None


async def keep(
    connection: Connection,
    experiment_id: str,
    *,
    word: str,
    verdict: dict[str, Any],
    at: datetime,
    look: dict[str, Any] | None,
) -> None:
    """Make `verdict` the newest one; keep `look`, if given, in the history."""
    looked_at = None if look is None else at
    await connection.execute(_KEEP, experiment_id, at, word, json.dumps(verdict), looked_at)
    if look is not None:
        await connection.execute(
            "INSERT INTO looks (experiment, at, word, verdict) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            experiment_id,
            at,
            word,
            json.dumps(look),
        )


async def told_stage(connection: Connection, experiment_id: str, stage: str, at: datetime) -> None:
    """Remember that this stage was told."""
    await connection.execute(
        "INSERT INTO evaluations (experiment, at, stage) VALUES ($1, $2, $3)"
        " ON CONFLICT (experiment) DO UPDATE SET stage = EXCLUDED.stage",
        experiment_id,
        at,
        stage,
    )


async def weigh(connection: Connection, experiment_id: str, units: int) -> None:
    """Remember that weights were drawn when so many units had come."""
    await connection.execute("UPDATE evaluations SET weighed = $2 WHERE experiment = $1", experiment_id, units)


async def running(connection: Connection) -> list[str]:
    """Ids of the experiments of all tenants that have neither ended nor pause, the oldest first."""
    rows = await connection.fetch(
        "SELECT id FROM experiments WHERE ended_at IS NULL AND NOT paused ORDER BY started_at, id"
    )
    return [row["id"] for row in rows]


async def step_to(connection: Connection, tenant: str, experiment_id: str, stage: str) -> Done | None:
    """The newest step that brought an experiment to this stage; None if it ended because its alias was changed."""
    row = await connection.fetchrow(_DONE, tenant, experiment_id, stage, _STEPS)
    return Done(row["actor"], row["action"], json.loads(row["detail"])) if row else None


async def untold(connection: Connection) -> list[str]:
    """Ids of the experiments whose stage is another than the one that was told last, the oldest first."""
    return [row["id"] for row in await connection.fetch(_UNTOLD)]


async def newest(db: Database, experiment_id: str) -> Look | None:
    """The newest verdict of an experiment, whether or not it was kept in the history."""
    async with db.transaction(picture=True) as connection:
        row = await connection.fetchrow(
            "SELECT at, word, verdict FROM evaluations WHERE experiment = $1 AND verdict IS NOT NULL", experiment_id
        )
    return _look(row) if row else None


async def words(db: Database, tenant: str) -> dict[str, str]:
    """The newest word on each of a tenant's experiments, by its id."""
    async with db.transaction(picture=True) as connection:
        rows = await connection.fetch(
            "SELECT v.experiment, v.word FROM evaluations v JOIN experiments e ON e.id = v.experiment"
            " WHERE e.tenant = $1 AND v.verdict IS NOT NULL",
            tenant,
        )
    return {row["experiment"]: row["word"] for row in rows}


async def history(db: Database, experiment_id: str, limit: int) -> list[Look]:
    """The newest `limit` looks, the oldest of them first."""
    async with db.transaction(picture=True) as connection:
        rows = await connection.fetch(_LOOKS, experiment_id, limit)
    return [_look(row) for row in reversed(rows)]


def _look(row: Any) -> Look:
    return Look(row["at"], row["word"], json.loads(row["verdict"]))
