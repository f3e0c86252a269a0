"""Sessions: a signed cookie that says which key its bearer once showed. Text in, a caller out; no HTTP, nothing stored.

The cookie holds no usable key: the SHA-256 of a tenant's key, or a keyed mark of the admin key, and the hour it ends.
Who that is, is asked of the snapshot anew each time: a revoked or expired key ends its sessions at once, a changed
admin key the operator's. Signing out makes the browser forget; to end a session elsewhere, revoke its key.

There is no limit on failed tries: a key carries 256 random bits, and the admin key is compared in constant time.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

from gateway.api.auth import Caller, require_admin
from gateway.errors import Unauthenticated, Unavailable
from gateway.identity import hash_key
from gateway.serving.auth import look_up, whose
from gateway.snapshot import Current

LIFETIME = timedelta(hours=12)
_OPERATOR, _TENANT = "operator", "tenant"


class SignedOut(Unauthenticated):
    """There is no session, or none any more."""


@dataclass(frozen=True, slots=True)
class Session:
    """`caller` is who acts; `token` goes with every form, so that no other page can make the browser send one."""

    caller: Caller
    token: str


def sign_in(key: str, *, admin_key: str, current: Current, now: datetime) -> str:
    """The cookie for whoever shows `key` now: the admin key, or a tenant's with the scope `admin`.

    Raises `Unauthenticated`, `Forbidden`, or `Unavailable` while keys cannot be checked.
    """
    secret = _secret(current)
    if hmac.compare_digest(key.encode("utf-8", "surrogatepass"), admin_key.encode()):
        kind, mark = _OPERATOR, _mark(secret, "admin", admin_key)
    else:
        tenant, known = look_up(key, current.snapshot, stale=current.stale)
        require_admin(Caller(f"key:{known.id}", known, tenant))
        kind, mark = _TENANT, hash_key(key).hex()
    ends = int((now + LIFETIME).timestamp())
    said = f"{kind}.{mark}.{ends}.{secrets.token_hex(8)}"
    return f"{said}.{_mark(secret, 'session', said)}"


def read(cookie: str | None, *, admin_key: str, current: Current, now: datetime) -> Session:
    """Who the cookie's bearer is now. Raises `SignedOut`, `Forbidden`, or `Unavailable` before the first snapshot."""
    secret = _secret(current)
    said, _, mac = (cookie or "").rpartition(".")
    if not hmac.compare_digest(mac.encode("utf-8", "replace"), _mark(secret, "session", said).encode()):
        raise SignedOut("You are not signed in.")
    kind, mark, ends, _ = said.split(".")  # the MAC says that we wrote it
    if int(ends) <= now.timestamp():
        raise SignedOut("Your session has ended.")
    token = _mark(secret, "form", said)
    if kind == _OPERATOR:
        if not hmac.compare_digest(mark, _mark(secret, "admin", admin_key)):
            raise SignedOut("The admin key has changed.")
        return Session(Caller("operator"), token)
    try:
        tenant, key = whose(bytes.fromhex(mark), current.snapshot, stale=current.stale)
    except Unauthenticated as error:
        raise SignedOut(error.message) from error
    caller = Caller(f"key:{key.id}", key, tenant)
    require_admin(caller)
    return Session(caller, token)


def _secret(current: Current) -> bytes:
    if not current.snapshot.secret:
        raise Unavailable("The gateway is starting: it does not know its keys yet.", remedy="Try again shortly.")
    return current.snapshot.secret


def _mark(secret: bytes, use: str, text: str) -> str:
    """32 hex that only we can make. `use` tells apart what is marked, here and from `identity.py`'s."""
    key = blake2b(secret, digest_size=32, person=b"console").digest()
    return blake2b(f"{use}:{text}".encode("utf-8", "surrogatepass"), key=key, digest_size=16).hexdigest()
