"""Experiments: the list of a tenant's comparisons."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from gateway.console.here import Here, Place

router = APIRouter()
PLACE = Place("experiments", "Experiments")


@router.get("/t/{tenant}/experiments")
async def index(here: Here) -> Response:
    """The newest first."""
    found = await here.rooms.experiments.list(here.tenant)
    return here.page("experiments.jinja", title="Experiments", experiments=found)
