"""/admin/v1/…/aliases/{alias}/shadow: mirror a share of an alias's requests to a candidate, and see how it did."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import Field, FiniteFloat

from gateway.api.aliases import AliasName, known, swapped_row
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.shapes import Body, RefText, own_ref, shadow_row
from gateway.api.tenants import OwnTenant
from gateway.domain import Shadow
from gateway.store.shadows import Compared, compared

router = APIRouter(
    prefix="/admin/v1/tenants/{tenant}/aliases/{alias}/shadow", tags=["aliases"], route_class=IdentifiedRoute
)


class ShadowBody(Body):
    """Its answers are recorded and returned to nobody."""

    ref: RefText = Field(description="The candidate: `support@3`, `acme/support@3` or `base`.", examples=["support@3"])
    share: FiniteFloat = Field(gt=0, le=1, description="Of the requests that were answered well.", examples=[0.1])


@router.put("", summary="Mirror a share of an alias's requests to a candidate")
async def put(
    body: ShadowBody, alias: AliasName, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere
) -> dict[str, Any]:
    shadow = Shadow(own_ref(tenant, body.ref), body.share)
    return swapped_row(await rooms.aliases.mirror(tenant, known(alias), shadow, actor=caller.actor))


@router.delete("", summary="Mirror nothing any more")
async def delete(alias: AliasName, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    return swapped_row(await rooms.aliases.mirror(tenant, known(alias), None, actor=caller.actor))


@router.get("", summary="What the candidates have shown beside the answers that clients got")
async def show(alias: AliasName, tenant: OwnTenant, rooms: RoomsHere) -> dict[str, Any]:
    found = await rooms.aliases.get(tenant, known(alias))
    rows = [_candidate(one) for one in await compared(rooms.db, tenant, found.name)]
    return {"object": "shadow", "tenant": tenant, "alias": found.name, "shadow": shadow_row(found), "candidates": rows}


def _candidate(one: Compared) -> dict[str, Any]:
    return {
        **asdict(one),
        "since": one.since.isoformat(),
        "until": one.until.isoformat(),
        "error_rate": one.errors / one.requests,
    }
