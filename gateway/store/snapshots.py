"""Reads the Snapshot: one consistent picture of all control-plane rows."""

from __future__ import annotations

from gateway.snapshot import Snapshot
from gateway.store import adapters, aliases, keys, metrics, preparations, tenants
from gateway.store.database import Connection, Database


async def read_snapshot(db: Database) -> Snapshot:
    """The picture as of now. Every row belongs to its `version`: nothing is of an older or a newer one. It leaves out
    `base_model`, which is in no row.
    """
    async with db.transaction(picture=True) as connection:
        state = await connection.fetchrow("SELECT version, secret FROM control_state")
        return Snapshot(
            version=state["version"],
            secret=state["secret"],
            tenants={tenant.name: tenant for tenant in await tenants.every(connection)},
            keys=await keys.live(connection),
            aliases={(alias.tenant, alias.name): alias for alias in await aliases.every(connection)},
            adapters={adapter.ref: adapter for adapter in await adapters.every(connection)},
            metrics={(metric.tenant, metric.name): metric for metric in await metrics.every(connection)},
            preparing=await preparations.refs(connection),
        )


async def read_secret(connection: Connection) -> bytes:
    """The installation's own key, which names units and layers."""
    return bytes(await connection.fetchval("SELECT secret FROM control_state"))


async def read_version(db: Database) -> int:
    """The version of the newest committed change."""
    async with db.transaction(picture=True) as connection:
        return int(await connection.fetchval("SELECT version FROM control_state"))
