"""Rows of `metrics`."""

from __future__ import annotations

from gateway.domain import Metric, MetricKind
from gateway.store.database import Connection

_SELECT = "SELECT tenant, name, kind, optimize, description, unit, numerator, denominator FROM metrics"


async def insert(connection: Connection, metric: Metric) -> None:
    """One that the tenant has under this name stays as it is."""
    await connection.execute(
        "INSERT INTO metrics (tenant, name, kind, optimize, description, unit, numerator, denominator)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        " ON CONFLICT DO NOTHING",
        metric.tenant,
        metric.name,
        metric.kind.value,
        metric.optimize,
        metric.description,
        metric.unit,
        metric.numerator,
        metric.denominator,
    )


async def find(connection: Connection, tenant: str, name: str) -> Metric | None:
    row = await connection.fetchrow(f"{_SELECT} WHERE tenant = $1 AND name = $2", tenant, name)
    return _metric(row) if row else None


async def of_tenant(connection: Connection, tenant: str) -> list[Metric]:
    return [_metric(row) for row in await connection.fetch(f"{_SELECT} WHERE tenant = $1 ORDER BY name", tenant)]


async def every(connection: Connection) -> list[Metric]:
    return [_metric(row) for row in await connection.fetch(_SELECT)]


def _metric(row: Connection) -> Metric:
    return Metric(**{**row, "kind": MetricKind(row["kind"])})
