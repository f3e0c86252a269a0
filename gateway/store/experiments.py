"""Rows of `experiments`. The database holds that an alias has at most one running."""

from __future__ import annotations

from gateway.domain import Experiment
from gateway.store.aliases import variants_from_json, variants_to_json
from gateway.store.database import Connection

_SELECT = (
    "SELECT id, tenant, alias, name, variants, status, started_at, metric, stopped_at, stop_reason FROM experiments"
)


async def insert(connection: Connection, experiment: Experiment) -> None:
    await connection.execute(
        "INSERT INTO experiments (id, tenant, alias, name, variants, metric, status, started_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        experiment.id,
        experiment.tenant,
        experiment.alias,
        experiment.name,
        variants_to_json(experiment.variants),
        experiment.metric,
        experiment.status,
        experiment.started_at,
    )


async def stop(connection: Connection, experiment_id: str, *, reason: str) -> None:
    """Nothing happens to one that has stopped."""
    await connection.execute(
        "UPDATE experiments SET status = 'stopped', stopped_at = now(), stop_reason = $2"
        " WHERE id = $1 AND status = 'running'",
        experiment_id,
        reason,
    )


async def find(connection: Connection, experiment_id: str) -> Experiment | None:
    row = await connection.fetchrow(f"{_SELECT} WHERE id = $1", experiment_id)
    return _experiment(row) if row else None


async def of_tenant(connection: Connection, tenant: str) -> list[Experiment]:
    """Newest first."""
    rows = await connection.fetch(f"{_SELECT} WHERE tenant = $1 ORDER BY started_at DESC, id", tenant)
    return [_experiment(row) for row in rows]


def _experiment(row: Connection) -> Experiment:
    return Experiment(**{**row, "variants": variants_from_json(row["variants"])})
