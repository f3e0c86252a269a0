"""Rows of `tenants`."""

from __future__ import annotations

from typing import Any

from gateway.domain import Tenant
from gateway.store.database import Connection
from gateway.store.limits import packed, unpacked

_SELECT = "SELECT name, store_content, allow_pinning, limits, weight FROM tenants"


async def insert(connection: Connection, tenant: Tenant) -> bool:
    """False when the name is taken."""
    status = await connection.execute(
        "INSERT INTO tenants (name, store_content, allow_pinning, limits, weight) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT DO NOTHING",
        *_values(tenant),
    )
    return bool(status == "INSERT 0 1")


async def update(connection: Connection, tenant: Tenant) -> None:
    await connection.execute(
        "UPDATE tenants SET store_content = $2, allow_pinning = $3, limits = $4, weight = $5 WHERE name = $1",
        *_values(tenant),
    )


async def find(connection: Connection, name: str) -> Tenant | None:
    row = await connection.fetchrow(f"{_SELECT} WHERE name = $1", name)
    return _tenant(row) if row else None


async def every(connection: Connection) -> list[Tenant]:
    """All of them, by name."""
    return [_tenant(row) for row in await connection.fetch(f"{_SELECT} ORDER BY name")]


def _values(tenant: Tenant) -> tuple[Any, ...]:
    return tenant.name, tenant.store_content, tenant.allow_pinning, packed(tenant.limits), tenant.weight


def _tenant(row: Any) -> Tenant:
    return Tenant(**{**row, "limits": unpacked(row["limits"])})
