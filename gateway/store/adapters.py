"""Rows of `adapters`: the versions that the gateway may serve. Their weights are in the adapter store."""

from __future__ import annotations

from adapters.ref import AdapterRef
from gateway.domain import Adapter
from gateway.store.database import Connection

_SELECT = (
    "SELECT tenant, name, version, digest, rank, base_model, retired_at IS NOT NULL AS retired, verdict,"
    " verdict_reason, continues FROM adapters"
)
_THIS = " WHERE tenant = $1 AND name = $2 AND version = $3"
_RETIRE = "UPDATE adapters SET retired_at = now() WHERE tenant = $1 AND name = $2 AND version = $3"


async def insert(connection: Connection, adapter: Adapter) -> None:
    ref = adapter.ref
    await connection.execute(
        "INSERT INTO adapters (tenant, name, version, digest, rank, base_model, verdict, verdict_reason,"
        " continues) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        ref.tenant,
        ref.name,
        ref.version,
        adapter.digest,
        adapter.rank,
        adapter.base_model,
        adapter.verdict,
        adapter.reason,
        str(adapter.continues) if adapter.continues is not None else None,
    )


async def retire(connection: Connection, ref: AdapterRef) -> None:
    await connection.execute(_RETIRE, ref.tenant, ref.name, ref.version)


async def find(connection: Connection, ref: AdapterRef) -> Adapter | None:
    row = await connection.fetchrow(_SELECT + _THIS, ref.tenant, ref.name, ref.version)
    return _adapter(row) if row else None


async def of_tenant(connection: Connection, tenant: str) -> list[Adapter]:
    """By name and version, retired ones too."""
    rows = await connection.fetch(f"{_SELECT} WHERE tenant = $1 ORDER BY name, version", tenant)
    return [_adapter(row) for row in rows]


async def every(connection: Connection) -> list[Adapter]:
    return [_adapter(row) for row in await connection.fetch(_SELECT)]


def _adapter(row: Connection) -> Adapter:
    ref = AdapterRef(row["tenant"], row["name"], row["version"])
    continues = AdapterRef.parse(row["continues"]) if row["continues"] is not None else None
    about = (row["digest"], row["rank"], row["base_model"], row["retired"], row["verdict"], row["verdict_reason"])
    return Adapter(ref, *about, continues)
