"""GET /admin/v1/engine: the base model, the slots, what is resident where. The operator's: it names every tenant."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from gateway.api.auth import require_operator
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere

router = APIRouter(prefix="/admin/v1", tags=["engine"], route_class=IdentifiedRoute)


@router.get("/engine", summary="The engine and the workers in front of it")
async def show(rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    require_operator(caller)
    return await rooms.engine_view()
