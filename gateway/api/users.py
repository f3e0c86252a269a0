"""/admin/v1/tenants/{tenant}/users: erase what is kept of one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.lineage import TargetingKey, Unit
from gateway.api.tenants import OwnTenant
from gateway.control.lineage import Who

router = APIRouter(prefix="/admin/v1/tenants/{tenant}", tags=["users"], route_class=IdentifiedRoute)


@router.delete("/users", summary="Erase a user's prompts, answers and feedback, and name what learnt from them")
async def erase(
    tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere, targeting_key: TargetingKey = None, unit: Unit = None
) -> dict[str, Any]:
    """Durable once answered: none of it comes out of an export again, requests under way included. The targeting key
    itself is neither kept nor repeated."""
    done = await rooms.users.erase(tenant, Who(targeting_key, unit), actor=caller.actor)
    return {
        "object": "erasure",
        "unit": done.unit,
        "erased": {"inferences": done.erased.inferences, "feedback": done.erased.feedback},
        "retrain": list(map(str, done.retrain)),
    }
