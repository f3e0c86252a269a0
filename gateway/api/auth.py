"""Who is asking: the operator (the admin key), or a tenant by one of its own keys. Names in, a caller out; no routes.

A tenant's admin sees its own tenant and nothing else: for anybody else's name the answer is, byte for byte, the one for
a name that nobody has.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from adapters.ref import is_slug
from gateway.control.names import unknown
from gateway.domain import ApiKey, Scope, Tenant
from gateway.errors import Forbidden, Unauthenticated, Unavailable
from gateway.identity import hash_key
from gateway.snapshot import Current


@dataclass(frozen=True, slots=True)
class Caller:
    """`key` is None for the operator. `actor` is what the audit log calls the caller."""

    actor: str
    key: ApiKey | None = None

    @property
    def tenant(self) -> str | None:
        """The only tenant this caller may see; None for the operator, who sees all."""
        return self.key.tenant if self.key else None

    def administers(self, tenant: str) -> bool:
        """Whether this caller may look at and change what belongs to `tenant`."""
        return self.key is None or (self.key.tenant == tenant and Scope.ADMIN in self.key.scopes)


def identify(headers: Iterable[tuple[bytes, bytes]], *, admin_key: str, current: Current) -> Caller:
    """The caller of a request with these headers (names in lower case).

    Raises `Unauthenticated` without a key that we know, and `Unavailable` if the key is unknown while the database is
    away: it may have been made since.
    """
    given = _bearer(headers)
    if given is None:
        raise Unauthenticated("No API key was given.", remedy="Send it as `Authorization: Bearer KEY`.")
    if hmac.compare_digest(given.encode("latin-1"), admin_key.encode()):
        return Caller("operator")
    key = current.snapshot.keys.get(hash_key(given))
    if key is not None and (key.expires_at is None or key.expires_at > datetime.now(UTC)):
        return Caller(f"key:{key.id}", key)
    if key is None and current.stale:
        raise Unavailable("API keys cannot be checked now.", remedy="Try again shortly.", code="database_away")
    raise Unauthenticated("This API key is not valid.", remedy="Check it, or ask for a new one.")


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").strip().partition(" ")
            return key.strip() or None if scheme.lower() == "bearer" else None
    return None


def require_operator(caller: Caller) -> None:
    """Let only the admin key pass."""
    if caller.key is not None:
        raise Forbidden("This needs the installation's admin key; a tenant's key does not do.")


def require_admin(caller: Caller) -> None:
    """Let the operator pass, and a tenant's key with the scope `admin`."""
    if caller.key is not None and Scope.ADMIN not in caller.key.scopes:
        raise Forbidden(
            "This API key lacks the scope `admin`.",
            remedy="Use one that has it: gateway keys create TENANT --scope admin.",
        )


def own_tenant(caller: Caller, name: str) -> str:
    """`name`, if the caller administers it. Raises `NotFound` otherwise, whether or not it exists."""
    require_admin(caller)
    if not is_slug(name) or not caller.administers(name):
        raise unknown("tenant", name, param="tenant")
    return name


def speaking_tenant(caller: Caller, scope: Scope, current: Current) -> Tenant:
    """The tenant whose key this is, for what tenants do themselves. Raises `Forbidden` without the scope."""
    if caller.key is None:
        raise Forbidden("The admin key belongs to no tenant.", remedy=f"Use a tenant's key with the scope `{scope}`.")
    if scope not in caller.key.scopes:
        raise Forbidden(f"This API key lacks the scope `{scope}`.", remedy="Use one that has it.")
    return current.snapshot.tenants[caller.key.tenant]
