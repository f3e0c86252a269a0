"""Rows of `api_keys`. A key's text is nowhere: only its SHA-256 and the part that may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.domain import ApiKey, Limits, Scope
from gateway.store.database import Connection
from gateway.store.limits import packed, unpacked

_SELECT = "SELECT id, prefix, scopes, created_at, expires_at, revoked_at, limits FROM api_keys"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as people may see it. A revoked one is still listed, with the moment of its revocation."""

    id: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    limits: Limits | None = None


async def insert(connection: Connection, key: ApiKey, *, prefix: str, digest: bytes) -> None:
    await connection.execute(
        "INSERT INTO api_keys (id, tenant, digest, prefix, scopes, expires_at, limits)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        key.id,
        key.tenant,
        digest,
        prefix,
        sorted(key.scopes),
        key.expires_at,
        packed(key.limits),
    )


async def limit(connection: Connection, tenant: str, key_id: str, limits: Limits | None) -> None:
    """Give the tenant's key these limits in place of those it has."""
    await connection.execute(
        "UPDATE api_keys SET limits = $3 WHERE tenant = $1 AND id = $2", tenant, key_id, packed(limits)
    )


async def find(connection: Connection, tenant: str, key_id: str) -> KeyInfo | None:
    """None when the tenant has no such key. A revoked one is found."""
    row = await connection.fetchrow(f"{_SELECT} WHERE tenant = $1 AND id = $2", tenant, key_id)
    return _info(row) if row else None


async def revoke(connection: Connection, tenant: str, key_id: str) -> bool:
    """False when the tenant has no such key. One revoked before keeps its moment."""
    status = await connection.execute(
        "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE tenant = $1 AND id = $2", tenant, key_id
    )
    return bool(status == "UPDATE 1")


async def of_tenant(connection: Connection, tenant: str) -> list[KeyInfo]:
    """Oldest first, revoked ones too."""
    rows = await connection.fetch(f"{_SELECT} WHERE tenant = $1 ORDER BY created_at, id", tenant)
    return [_info(row) for row in rows]


def _info(row: Any) -> KeyInfo:
    scopes = frozenset(map(Scope, row["scopes"]))
    return KeyInfo(**{**row, "scopes": scopes, "limits": unpacked(row["limits"])})


async def live(connection: Connection) -> dict[bytes, ApiKey]:
    """By SHA-256: all that are neither revoked nor expired. Whoever holds this must still look at `expires_at`."""
    rows = await connection.fetch(
        "SELECT digest, id, tenant, scopes, expires_at, limits FROM api_keys"
        " WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
    )
    return {
        row["digest"]: ApiKey(
            row["id"],
            row["tenant"],
            frozenset(map(Scope, row["scopes"])),
            row["expires_at"],
            unpacked(row["limits"]),
        )
        for row in rows
    }
