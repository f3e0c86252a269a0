"""A tenant's keys, limits and settings: what its admin may see and do, and beside it what only the operator may."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from gateway.api.auth import require_operator
from gateway.console import limiting
from gateway.console.here import Desk, Fields, Here, Place
from gateway.console.limiting import Line
from gateway.console.reading import number_of
from gateway.control.keys import NewKey
from gateway.domain import Scope
from gateway.errors import InvalidRequest
from gateway.store.keys import KeyInfo

router = APIRouter()
PLACE = Place("keys", "Keys and limits")

LONGEST_DAYS = 3650
ENDED = 100
"""Keys that ended, of a page: the playground alone leaves one an hour for each who uses it."""
FIRST = frozenset((Scope.INFERENCE, Scope.FEEDBACK))
SCOPES = {
    Scope.INFERENCE: "ask models",
    Scope.FEEDBACK: "say what an answer was worth",
    Scope.ADMIN: "change what belongs to the tenant, and sign in here",
    Scope.EVALUATE: "with inference: ask any version, outside of experiments",
}
assert SCOPES.keys() == set(Scope)  # a new scope needs its words here


@dataclass(frozen=True, slots=True)
class Row:
    """A key, and what was used of its limits."""

    key: KeyInfo
    limits: str
    used: limiting.Used | None
    mine: bool
    """It is the one that whoever looks signed in with."""

    @property
    def state(self) -> str:
        if self.key.revoked_at is not None:
            return "revoked"
        expires = self.key.expires_at
        return "expired" if expires is not None and expires <= datetime.now(UTC) else "live"

    @property
    def fleeting(self) -> bool:
        """It was made for evaluations, to end soon: by the playground, or by a trainer's gate."""
        expires = self.key.expires_at
        return Scope.EVALUATE in self.key.scopes and expires is not None


@router.get("/t/{tenant}/keys")
async def index(here: Here) -> Response:
    return await _page(here)


@router.post("/t/{tenant}/keys")
async def create(here: Here, fields: Fields) -> Response:
    """Make a key. This page alone shows its text: so there is no other one to go to."""
    scopes = [scope for scope in Scope if fields.get(f"scope-{scope}")]
    limits = {name: value for name, value in limiting.changes(fields).items() if value is not None}
    expires = _expires(fields)
    made = await here.rooms.keys.create(here.tenant, scopes, expires_at=expires, limits=limits, actor=here.actor)
    return await _page(here, made=made)


@router.post("/t/{tenant}/keys/{key}/revoke")
async def revoke(here: Here, key: str) -> Response:
    await here.rooms.keys.revoke(here.tenant, key[:64], actor=here.actor)
    return here.go("keys")


@router.post("/t/{tenant}/keys/{key}/limits")
async def limit(here: Here, key: str, fields: Fields) -> Response:
    await here.rooms.keys.limit(here.tenant, key[:64], limiting.changes(fields), actor=here.actor)
    return here.go("keys")


@router.post("/t/{tenant}/settings")
async def settings(here: Here, fields: Fields) -> Response:
    """What the tenant allows; its own admin may change that."""
    await here.rooms.tenants.update(
        here.tenant,
        store_content=fields.get("store_content") == "yes",
        allow_pinning=fields.get("allow_pinning") == "yes",
        actor=here.actor,
    )
    return here.go("keys")


@router.post("/t/{tenant}/limits")
async def limits(here: Here, fields: Fields) -> Response:
    """What the tenant may use: a tenant must not grant itself more."""
    require_operator(here.caller)
    await here.rooms.tenants.update(
        here.tenant, limits=limiting.changes(fields), weight=number_of(fields, "weight"), actor=here.actor
    )
    return here.go("keys")


async def _page(here: Desk, *, made: NewKey | None = None) -> Response:
    keys = await here.rooms.keys.list(here.tenant)
    tenant = next(one for one in await here.rooms.tenants.list() if one.name == here.tenant)
    account = f"tenant:{here.tenant}"
    used = await limiting.used(here.rooms.db, [account, *(f"key:{key.id}" for key in keys)])
    mine = here.caller.key.id if here.caller.key is not None else None
    rows = [Row(key, limiting.short(key.limits), used.get(f"key:{key.id}"), key.id == mine) for key in reversed(keys)]
    ended = [row for row in rows if row.state != "live"]
    values: dict[str, Any] = {
        "tenant": tenant,
        "limits": limiting.lines(tenant.limits, used.get(account)),
        "live": [row for row in rows if row.state == "live"],
        "ended": ended[:ENDED],
        "ended_in_all": len(ended),
        "made": made,
        "scopes": SCOPES,
        "first": FIRST,
        "labels": limiting.LABELS,
        "lines": key_lines,
    }
    return here.page("keys.jinja", title="Keys and limits", **values)


def key_lines(row: Row) -> list[Line]:
    """A key's limits, for its form."""
    return limiting.lines(row.key.limits, row.used)


def _expires(fields: Fields) -> datetime | None:
    text = fields.get("days", "").strip()
    if not text:
        return None
    days = number_of(fields, "days")
    if not 0 < days <= LONGEST_DAYS:
        raise InvalidRequest(f"A key ends within {LONGEST_DAYS} days, or never.", param="days")
    return datetime.now(UTC) + timedelta(days=days)
