"""/admin/v1/tenants: who shares this base model, what they allow, and how much of it they may use."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field, FiniteFloat

from gateway.api.auth import own_tenant, require_admin, require_operator
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.shapes import Body, LimitsBody, Name, limits_row, listed
from gateway.control.limits import MOST_WEIGHT
from gateway.domain import Tenant
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/admin/v1", tags=["tenants"], route_class=IdentifiedRoute)


def _tenant(tenant: str, caller: CallerHere) -> str:
    return own_tenant(caller, tenant)


OwnTenant = Annotated[str, Depends(_tenant)]
"""The tenant in the path, which the caller administers; anything else has become a 404 before."""


Weight = Annotated[
    FiniteFloat,
    Field(gt=0, le=MOST_WEIGHT, description="Its share of a full engine, relative to the others'.", examples=[1]),
]


class NewTenant(Body):
    """A tenant is known by its name everywhere, for ever."""

    name: Name = Field(description="1 to 64 of a-z 0-9 . _ -", examples=["acme"])
    store_content: bool = Field(
        False, description="Keep prompts and answers, so that feedback can become training rows."
    )
    allow_pinning: bool = Field(True, description="Clients may name `alias@version`, `base` or a variant.")
    limits: LimitsBody | None = Field(None, examples=[{"requests_per_minute": 600, "tokens_per_day": 5_000_000}])
    weight: Weight = 1


class TenantChanges(Body):
    """What is left out stays as it is."""

    store_content: bool | None = Field(None, examples=[True])
    allow_pinning: bool | None = None
    limits: LimitsBody | None = Field(None, description="null removes them all.", examples=[{"tokens_per_day": None}])
    weight: Weight | None = None


def _row(tenant: Tenant) -> dict[str, Any]:
    return {
        "object": "tenant",
        "name": tenant.name,
        "store_content": tenant.store_content,
        "allow_pinning": tenant.allow_pinning,
        "limits": limits_row(tenant.limits),
        "weight": tenant.weight,
    }


@router.post("/tenants", status_code=201, summary="Create a tenant")
async def create(body: NewTenant, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    require_operator(caller)
    return _row(
        await rooms.tenants.create(
            body.name,
            store_content=body.store_content,
            allow_pinning=body.allow_pinning,
            limits=body.limits.changes() if body.limits else None,
            weight=body.weight,
            actor=caller.actor,
        )
    )


@router.get("/tenants", summary="List the tenants you administer")
async def index(rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    require_admin(caller)
    return listed([_row(tenant) for tenant in await rooms.tenants.list() if caller.administers(tenant.name)])


@router.patch("/tenants/{tenant}", summary="Change what a tenant allows and, for the operator, what it may use")
async def update(body: TenantChanges, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    changes = body.model_dump(exclude_none=True, exclude={"limits"})
    if "limits" in body.model_fields_set:
        changes["limits"] = body.limits.changes() if body.limits else None
    if not changes:
        raise InvalidRequest("Nothing to change.", remedy="Give store_content, allow_pinning, limits or weight.")
    if changes.keys() & {"limits", "weight"}:
        require_operator(caller)  # a tenant must not grant itself more
    return _row(await rooms.tenants.update(tenant, **changes, actor=caller.actor))
