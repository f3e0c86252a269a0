"""/admin/v1/experiments/{experiment}/verdict and /looks: what an experiment comes to, now and over time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from gateway.api.bodies import IdentifiedRoute, RoomsHere
from gateway.api.experiments import OwnExperiment
from gateway.api.shapes import listed
from gateway.evaluation.figures import whole
from gateway.store import looks

router = APIRouter(prefix="/admin/v1/experiments/{experiment}", tags=["experiments"], route_class=IdentifiedRoute)

MOST_LOOKS = 5000
"""More than an experiment of ten years keeps (`evaluation/keeping.py`)."""


@router.get("/verdict", summary="The verdict as of now, with every figure that it rests on")
async def verdict(found: OwnExperiment, rooms: RoomsHere) -> dict[str, Any]:
    """`decided` is the verdict that the newest round came to: of an experiment that has ended, the one that ended it
    if the rule did. What came in later is in the others."""
    fresh = await rooms.judging.verdict(found)
    decided = await looks.newest(rooms.db, found.id)
    return {
        "object": "verdict",
        "experiment": found.id,
        "stage": found.stage.value,
        "at": datetime.now(UTC).isoformat(),
        **whole(fresh),
        "decided": None if decided is None else {"at": decided.at.isoformat(), **decided.verdict},
    }


@router.get("/looks", summary="What the rounds of evaluation found, the oldest first")
async def index(
    found: OwnExperiment, rooms: RoomsHere, limit: Annotated[int, Query(ge=1, le=MOST_LOOKS)] = MOST_LOOKS
) -> dict[str, Any]:
    """The newest `limit`. Early looks are all there, later ones ever further apart; those at which the word changed
    are always there."""
    return listed(
        [{"at": look.at.isoformat(), **look.verdict} for look in await looks.history(rooms.db, found.id, limit)]
    )
