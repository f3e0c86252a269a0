"""GET /admin/v1/engine: the base model, its limits, and what is resident where. A tenant's key sees its own part."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from gateway.api.auth import require_admin
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere

router = APIRouter(prefix="/admin/v1", tags=["engine"], route_class=IdentifiedRoute)


@router.get("/engine", summary="The engine and, for the operator, the workers in front of it")
async def show(rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    """A tenant's trainer needs the limits; other tenants' adapters and the machinery are not its business."""
    require_admin(caller)
    view = await rooms.engine_view()
    if caller.tenant is None:
        return view
    own = [ref for ref in view["resident"] if ref.startswith(f"{caller.tenant.name}/")]
    return {name: value for name, value in view.items() if name != "workers"} | {"resident": own}
