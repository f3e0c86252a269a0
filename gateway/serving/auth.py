"""Who is asking: a bearer key's SHA-256, looked up in the snapshot. It knows nothing of models or bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from gateway.domain import ApiKey, Scope, Tenant
from gateway.errors import Forbidden, Unauthenticated, Unavailable
from gateway.identity import hash_key
from gateway.snapshot import Snapshot

_SCHEME = "bearer "
_MOST_KNOWN = 10_000


def shown(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The credentials that a client shows: its `Authorization` header, or what Anthropic's clients send, as one."""
    given = headers.get(b"authorization")
    if given is None and (key := headers.get(b"x-api-key")) is not None:
        return b"Bearer " + key
    return given


def authenticate(
    authorization: bytes | None, snapshot: Snapshot, *, stale: bool, scope: Scope = Scope.INFERENCE
) -> tuple[Tenant, ApiKey]:
    """Tenant and key behind an `Authorization` header. Raises `Unauthenticated`, `Forbidden` or `Unavailable`.

    Behind a key with the scope `evaluate` stands its tenant with other rights: it may name any version, and no content
    is kept, since what it sends is other users' prompts once more, which erasing them would not find here. The tenant's
    limits stay: who may mint such a key must not grant itself more than the operator allows.
    """
    tenant, key = look_up(bearer(authorization), snapshot, stale=stale)
    if scope not in key.scopes:
        raise Forbidden(f"This API key lacks the scope `{scope}`.", remedy=f"Create one with the scope `{scope}`.")
    if Scope.EVALUATE in key.scopes:
        return replace(tenant, allow_pinning=True, store_content=False, evaluates=True), key
    return tenant, key


class Doorkeeper:
    """`authenticate`, by one who remembers faces: as long as the snapshot stays a header means the same, unless its key
    can expire. It spares most requests the hash."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._known: dict[bytes | None, tuple[Tenant, ApiKey]] = {}

    def authenticate(self, authorization: bytes | None, snapshot: Snapshot, *, stale: bool) -> tuple[Tenant, ApiKey]:
        """Tenant and key, as `authenticate` finds them."""
        if snapshot is not self._snapshot:
            self._snapshot, self._known = snapshot, {}
        known = self._known.get(authorization)
        if known is None:
            known = authenticate(authorization, snapshot, stale=stale)
            if known[1].expires_at is None and len(self._known) < _MOST_KNOWN:
                self._known[authorization] = known
        return known


def look_up(text: str, snapshot: Snapshot, *, stale: bool) -> tuple[Tenant, ApiKey]:
    """Whose key this is. Raises `Unauthenticated` or `Unavailable`.

    While the database cannot be reached (`stale`), a key we do not know may be a new one: that is a 503, not a 401.
    """
    return whose(hash_key(text), snapshot, stale=stale)


def whose(digest: bytes, snapshot: Snapshot, *, stale: bool) -> tuple[Tenant, ApiKey]:
    """As `look_up`, by the key's SHA-256."""
    key = snapshot.keys.get(digest)
    tenant = snapshot.tenants.get(key.tenant) if key is not None else None
    if key is None or tenant is None:
        if stale:
            raise Unavailable("The key cannot be checked at the moment.", remedy="Try again in a few seconds.")
        raise Unauthenticated("Incorrect API key provided.", remedy="Ask the operator of this gateway for a key.")
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        raise Unauthenticated("This API key has expired.", remedy="Create a new one.")
    return tenant, key


def bearer(authorization: bytes | None) -> str:
    """The key's text in an `Authorization` header. Raises `Unauthenticated` without one."""
    text = (authorization or b"").decode("latin-1")
    if text[: len(_SCHEME)].lower() != _SCHEME or not (key := text[len(_SCHEME) :].strip()):
        raise Unauthenticated(
            "You didn't provide an API key.", remedy="Send it in the header `Authorization: Bearer YOUR_KEY`."
        )
    return key
