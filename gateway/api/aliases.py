"""/admin/v1/tenants/{tenant}/aliases: what a client's `model` means. Every change is a swap and reports its timings."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field

from adapters.ref import is_slug
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.shapes import Body, Name, RefText, Variants, alias_row, listed, own_version, variants_of
from gateway.api.tenants import OwnTenant
from gateway.control.names import check_name, unknown
from gateway.domain import Fallback, Swapped

router = APIRouter(prefix="/admin/v1/tenants/{tenant}", tags=["aliases"], route_class=IdentifiedRoute)

AliasName = Annotated[str, Path(max_length=64)]


class AliasBody(Body):
    """The variants replace the old ones at once, after their adapters have been loaded and tried everywhere."""

    variants: Variants = Field(
        examples=[[{"name": "base", "weight": 1, "ref": "base"}, {"name": "tuned", "weight": 1, "ref": "support@1"}]]
    )
    fallback: Annotated[Fallback, Field(strict=False)] | None = Field(
        None, description="When what was assigned cannot be served. Left out: as it was, or `error`."
    )


class Promotion(Body):
    """Without `variant`, the version gets all the traffic; with it, that variant's share."""

    ref: RefText = Field(examples=["support@2"])
    variant: Name | None = Field(None, examples=["tuned"])


@router.put("/aliases/{alias}", summary="Set an alias's variants")
async def put(
    body: AliasBody, alias: AliasName, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere
) -> dict[str, Any]:
    check_name("an alias", alias, reserved=True)
    variants = variants_of(tenant, body.variants)
    return swapped_row(await rooms.aliases.set(tenant, alias, variants, fallback=body.fallback, actor=caller.actor))


@router.get("/aliases", summary="List the aliases")
async def index(tenant: OwnTenant, rooms: RoomsHere) -> dict[str, Any]:
    return listed([alias_row(alias) for alias in await rooms.aliases.list(tenant)])


@router.get("/aliases/{alias}", summary="Show an alias")
async def show(alias: AliasName, tenant: OwnTenant, rooms: RoomsHere) -> dict[str, Any]:
    return alias_row(await rooms.aliases.get(tenant, known(alias)))


@router.post("/aliases/{alias}/promote", summary="Move an alias, or one of its variants, to a version")
async def promote(
    body: Promotion, alias: AliasName, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere
) -> dict[str, Any]:
    ref = own_version(tenant, body.ref)
    swapped = await rooms.aliases.promote(tenant, known(alias), ref, variant=body.variant, actor=caller.actor)
    return swapped_row(swapped)


@router.post("/aliases/{alias}/rollback", summary="Go back to the variants before the last change")
async def rollback(alias: AliasName, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    return swapped_row(await rooms.aliases.rollback(tenant, known(alias), actor=caller.actor))


def known(alias: str) -> str:
    """A name that could be an alias's; what could not is on no list."""
    if not is_slug(alias):
        raise unknown("alias", alias, param="alias")
    return alias


def swapped_row(swapped: Swapped) -> dict[str, Any]:
    return {**alias_row(swapped.alias), "timings_ms": swapped.timings_ms}
