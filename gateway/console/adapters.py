"""Adapters: a tenant's versions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gateway.console.here import Here, Place

router = APIRouter()
PLACE = Place("adapters", "Adapters")


@router.get("/t/{tenant}/adapters")
async def index(here: Here) -> Response:
    """By name, the newest version first."""
    found = await here.rooms.adapters.list(here.tenant)
    return here.page("adapters.jinja", title="Adapters", adapters=found)
