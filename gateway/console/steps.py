"""What people do to a running experiment: lead it on, hold it, end it, and change who takes part. Each says why.

The figures that were on the page go into the audit log with it. What a step means is the room's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from gateway.console.experiments import own
from gateway.console.here import Fields, Here, Place
from gateway.console.reading import number_of, share_of
from gateway.console.verdicts import verdict_of
from gateway.errors import InvalidRequest
from gateway.evaluation import figures
from gateway.experiment import Experiment
from gateway.store import looks

router = APIRouter()
PLACE: Place | None = None

MOST_WORDS = 500


@router.post("/t/{tenant}/experiments/{experiment}/{step}")
async def take(here: Here, experiment: str, step: str, fields: Fields) -> Response:
    """Take a step, by its name. Raises what the room raises."""
    found = await own(here, experiment)
    why = fields.get("why", "").strip()[:MOST_WORDS]
    if not why and step != "override":
        raise InvalidRequest("Say why: it goes into the audit log.", param="why")
    rooms, actor, one = here.rooms.experiments, here.actor, found.id
    match step:
        case "pause":
            await rooms.pause(one, why=why, actor=actor)
        case "resume":
            await rooms.resume(one, why=why, actor=actor)
        case "advance":
            await rooms.advance(one, why=why, figures=await _shown(here, found), actor=actor)
        case "promote":
            variant = fields.get("variant", "")
            await rooms.promote(one, variant, why=why, figures=await _shown(here, found), actor=actor)
        case "roll-back":
            await rooms.roll_back(one, why=why, figures=await _shown(here, found), actor=actor)
        case "stop":
            await rooms.stop(one, reason=why, actor=actor)
        case "widen":
            await rooms.widen(one, share_of(fields, "coverage"), why=why, actor=actor)
        case "weights":
            weights = [number_of(fields, f"weight-{arm.name}") for arm in found.variants]
            await rooms.reweight(one, weights, why=why, figures=await _shown(here, found), actor=actor)
        case "override":
            await rooms.override(one, _tester(fields), fields.get("variant") or None, actor=actor)
        case _:
            raise InvalidRequest("There is no such step.")
    return here.go(f"experiments/{one}")


async def _shown(here: Here, experiment: Experiment) -> Mapping[str, Any] | None:
    """The newest verdict, as short as the rule's own steps leave it in the audit log."""
    newest = await looks.newest(here.rooms.db, experiment.id)
    return figures.brief(verdict_of(newest.verdict)) if newest else None


def _tester(fields: Mapping[str, str]) -> str:
    key = fields.get("targeting_key", "").strip()
    if not 1 <= len(key) <= 512:
        raise InvalidRequest("Name a tester by the targeting key that its clients send.", param="targeting_key")
    return key
