"""Rows of `tenants`."""

from __future__ import annotations

from gateway.domain import Tenant
from gateway.store.database import Connection

_SELECT = "SELECT name, store_content, allow_pinning FROM tenants"


async def insert(connection: Connection, tenant: Tenant) -> bool:
    """False when the name is taken."""
    status = await connection.execute(
        "INSERT INTO tenants (name, store_content, allow_pinning) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        tenant.name,
        tenant.store_content,
        tenant.allow_pinning,
    )
    return bool(status == "INSERT 0 1")


async def update(connection: Connection, tenant: Tenant) -> None:
    await connection.execute(
        "UPDATE tenants SET store_content = $2, allow_pinning = $3 WHERE name = $1",
        tenant.name,
        tenant.store_content,
        tenant.allow_pinning,
    )


async def find(connection: Connection, name: str) -> Tenant | None:
    row = await connection.fetchrow(f"{_SELECT} WHERE name = $1", name)
    return Tenant(**row) if row else None


async def every(connection: Connection) -> list[Tenant]:
    """All of them, by name."""
    return [Tenant(**row) for row in await connection.fetch(f"{_SELECT} ORDER BY name")]
