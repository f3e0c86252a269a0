"""POST /v1/feedback: what a user, a reviewer or a program thinks of an answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from gateway.api.auth import speaking_tenant
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.domain import Scope
from gateway.feedback.intake import FeedbackBody

router = APIRouter(prefix="/v1", tags=["feedback"], route_class=IdentifiedRoute)


@router.post("/feedback", summary="Judge an answer or a conversation")
async def give(body: FeedbackBody, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    """Durable once answered. A repeat under the same idempotency key answers with the same id and `duplicate: true`."""
    tenant = speaking_tenant(caller, Scope.FEEDBACK)
    feedback, created = await rooms.intake.accept(tenant, body)
    return {"object": "feedback", "id": feedback.id, "metric": feedback.metric, "duplicate": not created}
