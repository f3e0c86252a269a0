"""GET /admin/v1/audit: who changed what, the newest first."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from gateway.api.auth import own_tenant, require_admin
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.shapes import MAX_PAGE, listed
from gateway.store import audit

router = APIRouter(prefix="/admin/v1", tags=["audit"], route_class=IdentifiedRoute)


@router.get("/audit", summary="List changes, the newest first")
async def index(
    rooms: RoomsHere,
    caller: CallerHere,
    tenant: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> dict[str, Any]:
    require_admin(caller)
    mine = caller.tenant.name if caller.tenant else None
    wanted = mine if tenant is None else own_tenant(caller, tenant)
    return listed([_row(entry) for entry in await audit.entries(rooms.db, wanted, limit)])


def _row(entry: audit.Entry) -> dict[str, Any]:
    return {
        "object": "audit_entry",
        "id": entry.id,
        "at": entry.at.isoformat(),
        "actor": entry.actor,
        "tenant": entry.tenant,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.detail,
    }
