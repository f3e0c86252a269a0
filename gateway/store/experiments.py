"""Rows of `experiments`. The database holds that an alias has at most one that has not ended."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from gateway.domain import Unit
from gateway.experiment import Allocation, By, Epoch, Experiment, Guardrail, Plan, Stage
from gateway.store.aliases import split_from_json, split_to_json, variants_from_json, variants_to_json
from gateway.store.database import Connection

_COLUMNS = (
    "id, tenant, alias, name, variants, stage, started_at, plan, unit, coverage, canary_coverage, layer, hypothesis,"
    " owner, paused, split, epochs, ended_at, end_reason"
)
_SELECT = f"SELECT {_COLUMNS} FROM experiments"  # noqa: S608 — a constant of this file


async def put(connection: Connection, experiment: Experiment) -> None:
    """Insert it, or bring the row of its id to this state."""
    names = _COLUMNS.split(", ")
    places = ", ".join(f"${at}" for at in range(1, len(names) + 1))
    changed = ", ".join(f"{name} = EXCLUDED.{name}" for name in names[1:])
    await connection.execute(
        f"INSERT INTO experiments ({_COLUMNS}) VALUES ({places}) ON CONFLICT (id) DO UPDATE SET {changed}",  # noqa: S608 — our own columns
        experiment.id,
        experiment.tenant,
        experiment.alias,
        experiment.name,
        variants_to_json(experiment.variants),
        experiment.stage.value,
        experiment.started_at,
        json.dumps(asdict(experiment.plan)),
        experiment.unit.value,
        experiment.coverage,
        experiment.canary_coverage,
        experiment.layer,
        experiment.hypothesis,
        experiment.owner,
        experiment.paused,
        split_to_json(experiment.split),
        json.dumps([{**asdict(epoch), "since": epoch.since.isoformat()} for epoch in experiment.epochs]),
        experiment.ended_at,
        experiment.end_reason,
    )


async def end(connection: Connection, experiment_id: str, stage: Stage, *, reason: str) -> None:
    """Nothing happens to one that has ended."""
    await connection.execute(
        "UPDATE experiments SET stage = $2, ended_at = now(), end_reason = $3, paused = false, split = NULL"
        " WHERE id = $1 AND ended_at IS NULL",
        experiment_id,
        stage.value,
        reason,
    )


async def find(connection: Connection, experiment_id: str) -> Experiment | None:
    row = await connection.fetchrow(f"{_SELECT} WHERE id = $1", experiment_id)
    return _experiment(row) if row else None


async def of_tenant(connection: Connection, tenant: str) -> list[Experiment]:
    """Newest first."""
    rows = await connection.fetch(f"{_SELECT} WHERE tenant = $1 ORDER BY started_at DESC, id", tenant)
    return [_experiment(row) for row in rows]


async def running(connection: Connection) -> list[Experiment]:
    """Of all tenants: those that have not ended, paused ones included."""
    return [_experiment(row) for row in await connection.fetch(f"{_SELECT} WHERE ended_at IS NULL ORDER BY id")]


async def of_layer(connection: Connection, tenant: str, layer: str) -> list[Experiment]:
    """Those that hold a part of it, or may come to: all that have not ended."""
    rows = await connection.fetch(
        f"{_SELECT} WHERE tenant = $1 AND layer = $2 AND ended_at IS NULL ORDER BY id", tenant, layer
    )
    return [_experiment(row) for row in rows]


def _plan(text: str) -> Plan:
    row: dict[str, Any] = json.loads(text)
    for name, kind in (("widen", By), ("ship", By), ("roll_back", By), ("allocation", Allocation)):
        if name in row:
            row[name] = kind(row[name])
    row["secondaries"] = tuple(row.get("secondaries", ()))
    row["guardrails"] = tuple(Guardrail(**one) for one in row.get("guardrails", ()))
    return Plan(**row)


def _epoch(row: dict[str, Any]) -> Epoch:
    return Epoch(row["revision"], datetime.fromisoformat(row["since"]), tuple(row["weights"]))


def _experiment(row: Connection) -> Experiment:
    read = {
        "variants": variants_from_json(row["variants"]),
        "stage": Stage(row["stage"]),
        "plan": _plan(row["plan"]),
        "unit": Unit(row["unit"]),
        "split": split_from_json(row["split"]),
        "epochs": tuple(_epoch(one) for one in json.loads(row["epochs"])),
    }
    return Experiment(**{**row, **read})
