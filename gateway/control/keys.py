"""API keys: made, shown once, limited, revoked. A change reaches every worker with its notice, in milliseconds."""

from __future__ import annotations

import builtins
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from gateway.control.limits import LimitChanges, amended
from gateway.control.names import require_tenant, unknown
from gateway.domain import ApiKey, Limits, Scope
from gateway.errors import InvalidRequest
from gateway.identity import new_api_key
from gateway.store import keys
from gateway.store.changes import change
from gateway.store.database import Database
from gateway.store.keys import KeyInfo


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is shown this once. `prefix` is the part by which it may be recognised later."""

    id: str
    key: str = field(repr=False)
    prefix: str
    scopes: frozenset[Scope]
    limits: Limits | None = None


class Keys:
    """Create, list, limit and revoke. A tenant may have any number: two live ones are how a key is rotated."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self,
        tenant: str,
        scopes: Iterable[Scope],
        *,
        expires_at: datetime | None = None,
        limits: LimitChanges | None = None,
        actor: str,
    ) -> NewKey:
        """Raises `NotFound` for an unknown tenant, `InvalidRequest` for a limit out of range."""
        allowed = frozenset(scopes)
        if not allowed:
            raise InvalidRequest("A key without a scope opens nothing.", remedy="Give one.", param="scopes")
        text, prefix, digest = new_api_key()
        made = NewKey(f"key-{secrets.token_hex(8)}", text, prefix, allowed, amended(None, limits))
        async with change(self._db, "key.create", made.id, tenant=tenant, actor=actor) as new:
            limited = asdict(made.limits) if made.limits else None
            new.detail.update(prefix=prefix, scopes=sorted(allowed), limits=limited)
            await require_tenant(new.connection, tenant)
            key = ApiKey(made.id, tenant, allowed, expires_at, made.limits)
            await keys.insert(new.connection, key, prefix=prefix, digest=digest)
        return made

    async def list(self, tenant: str) -> builtins.list[KeyInfo]:
        """Oldest first, revoked ones too. Raises `NotFound` for an unknown tenant."""
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            return await keys.of_tenant(connection, tenant)

    async def limit(self, tenant: str, key_id: str, limits: LimitChanges | None, *, actor: str) -> KeyInfo:
        """Change the limits named; all of them are removed by None.

        Raises `NotFound` for a key that is unknown or another tenant's, `InvalidRequest` for a limit out of range.
        """
        async with change(self._db, "key.limit", key_id, tenant=tenant, actor=actor) as new:
            new.detail.update(limits=dict(limits) if limits is not None else None)
            key = await keys.find(new.connection, tenant, key_id)
            if key is None:
                raise unknown("key", key_id, param="id")
            key = replace(key, limits=amended(key.limits, limits))
            await keys.limit(new.connection, tenant, key_id, key.limits)
        return key

    async def revoke(self, tenant: str, key_id: str, *, actor: str) -> None:
        """Revoking twice is fine. Raises `NotFound` for a key that is unknown or another tenant's."""
        async with change(self._db, "key.revoke", key_id, tenant=tenant, actor=actor) as new:
            if not await keys.revoke(new.connection, tenant, key_id):
                raise unknown("key", key_id, param="id")
