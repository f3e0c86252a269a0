"""Who is asking: the operator (the admin key), or a tenant by one of its own keys. Names in, a caller out; no routes.

A tenant's admin sees its own tenant and nothing else: for anybody else's name the answer is, byte for byte, the one for
a name that nobody has.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from adapters.ref import is_slug
from gateway.control.names import unknown
from gateway.domain import ApiKey, Scope, Tenant
from gateway.errors import Forbidden
from gateway.serving.auth import bearer, look_up
from gateway.snapshot import Current


@dataclass(frozen=True, slots=True)
class Caller:
    """`actor` is what the audit log calls the caller. The operator has neither `key` nor `tenant`, and sees all."""

    actor: str
    key: ApiKey | None = None
    tenant: Tenant | None = None

    def administers(self, tenant: str) -> bool:
        """Whether this caller may look at and change what belongs to `tenant`."""
        return self.key is None or (self.key.tenant == tenant and Scope.ADMIN in self.key.scopes)


def identify(headers: Iterable[tuple[bytes, bytes]], *, admin_key: str, current: Current) -> Caller:
    """The caller of a request with these headers (names in lower case).

    Raises `Unauthenticated` without a key that we know, and `Unavailable` if the key is unknown while the database is
    away: it may have been made since.
    """
    given = bearer(next((value for name, value in headers if name == b"authorization"), None))
    if hmac.compare_digest(given.encode("latin-1"), admin_key.encode()):
        return Caller("operator")
    tenant, key = look_up(given, current.snapshot, stale=current.stale)
    return Caller(f"key:{key.id}", key, tenant)


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


def speaking_tenant(caller: Caller, scope: Scope) -> Tenant:
    """The tenant whose key this is, for what tenants do themselves. Raises `Forbidden` without the scope."""
    if caller.key is None or caller.tenant is None:
        raise Forbidden("The admin key belongs to no tenant.", remedy=f"Use a tenant's key with the scope `{scope}`.")
    if scope not in caller.key.scopes:
        raise Forbidden(f"This API key lacks the scope `{scope}`.", remedy=f"Create one with the scope `{scope}`.")
    return caller.tenant
