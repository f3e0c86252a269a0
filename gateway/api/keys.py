"""/admin/v1/tenants/{tenant}/keys: API keys. A key's text is in one answer only, the one that made it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import AfterValidator, AwareDatetime, Field

from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.shapes import Body, LimitsBody, limits_row, listed
from gateway.api.tenants import OwnTenant
from gateway.domain import Scope
from gateway.store.keys import KeyInfo

router = APIRouter(prefix="/admin/v1/tenants/{tenant}", tags=["keys"], route_class=IdentifiedRoute)

KeyId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]

LONGEST = timedelta(days=3660)


def _soon(moment: datetime) -> datetime:
    if not datetime.now(UTC) < moment < datetime.now(UTC) + LONGEST:
        raise ValueError("give a moment between now and ten years from now")
    return moment


class NewKey(Body):
    """Two live keys at once are how a key is rotated."""

    scopes: Annotated[list[Annotated[Scope, Field(strict=False)]], Field(min_length=1, max_length=len(Scope))] = Field(
        [Scope.INFERENCE, Scope.FEEDBACK], examples=[["inference", "feedback"]]
    )
    expires_at: Annotated[AwareDatetime, Field(strict=False), AfterValidator(_soon)] | None = Field(
        None, description="RFC 3339; never when left out.", examples=["2027-01-01T00:00:00Z"]
    )
    limits: LimitsBody | None = Field(
        None, description="Beside the tenant's, which hold too.", examples=[{"requests_per_minute": 60}]
    )


class KeyChanges(Body):
    """A key's text, scopes and end are for ever: make another one for these."""

    limits: LimitsBody | None = Field(description="null removes them all.", examples=[{"requests_per_minute": 60}])


@router.post("/keys", status_code=201, summary="Make a key; its text is shown this once")
async def create(body: NewKey, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    scopes = frozenset(body.scopes)
    limits = body.limits.changes() if body.limits else None
    made = await rooms.keys.create(tenant, scopes, expires_at=body.expires_at, limits=limits, actor=caller.actor)
    return {
        "object": "key",
        "id": made.id,
        "key": made.key,
        "prefix": made.prefix,
        "scopes": sorted(scopes),
        "expires_at": body.expires_at.isoformat() if body.expires_at else None,
        "limits": limits_row(made.limits),
    }


@router.get("/keys", summary="List the keys, without their text")
async def index(tenant: OwnTenant, rooms: RoomsHere) -> dict[str, Any]:
    return listed([_row(key) for key in await rooms.keys.list(tenant)])


@router.patch("/keys/{key_id}", summary="Change a key's limits, in every worker")
async def update(
    body: KeyChanges, key_id: KeyId, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere
) -> dict[str, Any]:
    limits = body.limits.changes() if body.limits else None
    return _row(await rooms.keys.limit(tenant, key_id, limits, actor=caller.actor))


@router.delete("/keys/{key_id}", status_code=204, summary="Revoke a key, in every worker")
async def revoke(key_id: KeyId, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere) -> Response:
    await rooms.keys.revoke(tenant, key_id, actor=caller.actor)
    return Response(status_code=204)


def _row(key: KeyInfo) -> dict[str, Any]:
    return {
        "object": "key",
        "id": key.id,
        "prefix": key.prefix,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        "limits": limits_row(key.limits),
    }
