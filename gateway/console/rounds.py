"""Rounds: what feedback came to, and what it could come to next."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gateway.console.here import Here, Place

router = APIRouter()
PLACE = Place("rounds", "Rounds")


@router.get("/t/{tenant}/rounds")
async def index(here: Here) -> Response:
    """Past rounds are the versions that a trainer made."""
    found = await here.rooms.adapters.list(here.tenant)
    return here.page("rounds.jinja", title="Rounds", adapters=found)
