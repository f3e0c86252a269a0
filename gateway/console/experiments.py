"""Experiments: the list of a tenant's comparisons, and what one has come to. What people do to one is `steps.py`'s."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from gateway.console.here import Here, Place
from gateway.console.verdicts import KINDS, by_metric, unit_of, verdict_of
from gateway.control.names import unknown
from gateway.domain import BASE
from gateway.experiment import Experiment, Stage
from gateway.feedback.results import results
from gateway.store import audit, looks
from gateway.store.looks import Look
from gateway.store.shadows import compared

router = APIRouter()
PLACE = Place("experiments", "Experiments")

LOOKS = 400
"""Of a plot: more than it has pixels for help nobody."""
STORY = 100
STAGES = {Stage.PROMOTED: "good", Stage.ROLLED_BACK: "bad", Stage.STOPPED: ""}
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


async def own(here: Here, experiment: str) -> Experiment:
    """The experiment of this tenant. Raises `NotFound`, the same for a foreign one as for none."""
    if _ID.match(experiment) is None:
        raise unknown("experiment", experiment, param="id")
    found = await here.rooms.experiments.get(experiment)
    if found.tenant != here.tenant:
        raise unknown("experiment", experiment, param="id")
    return found


@router.get("/t/{tenant}/experiments")
async def index(here: Here) -> Response:
    """The newest first, each with its newest verdict."""
    found = await here.rooms.experiments.list(here.tenant)
    words = await looks.words(here.rooms.db, here.tenant)
    return here.page(
        "experiments.jinja", title="Experiments", experiments=found, words=words, kinds=KINDS, stages=STAGES
    )


@router.get("/t/{tenant}/experiments/{experiment}")
async def show(here: Here, experiment: str) -> Response:
    found = await own(here, experiment)
    told = await audit.of_experiment(here.rooms.db, here.tenant, found.id, STORY)
    newest = await looks.newest(here.rooms.db, found.id)
    return here.page(
        "experiment.jinja",
        title=found.name,
        experiment=found,
        story=told,
        stages=STAGES,
        **await _found(here, found, newest),
    )


@router.get("/t/{tenant}/experiments/{experiment}/findings")
async def findings(here: Here, experiment: str, seen: str = "", stage: str = "") -> Response:
    """The verdict and its figures alone, for a page that stays open; nothing if they are those it has `seen`, and the
    whole page anew if that is of another stage."""
    found = await own(here, experiment)
    if stage != stage_of(found):
        return Response(status_code=204, headers={"hx-refresh": "true"})
    newest = await looks.newest(here.rooms.db, found.id)
    if newest is None or newest.at.isoformat() == seen:
        return Response(status_code=204)
    return here.part("findings.jinja", experiment=found, **await _found(here, found, newest))


@router.get("/t/{tenant}/experiments/{experiment}/served")
async def served(here: Here, experiment: str) -> Response:
    """What was assigned and what answered. It counts requests, which takes longer than the rest of the page."""
    found = await own(here, experiment)
    return here.part("served.jinja", results=await results(here.rooms.db, found, None))


@router.get("/t/{tenant}/experiments/{experiment}/shadow")
async def shadow(here: Here, experiment: str) -> Response:
    """What the candidate answered beside what users got, while no user gets it."""
    found = await own(here, experiment)
    candidate = found.variants[1].ref
    name = str(candidate) if candidate is not None else BASE
    seen = await compared(here.rooms.db, here.tenant, found.alias, since=found.started_at)
    return here.part("shadow.jinja", one=next((each for each in seen if each.ref == name), None), ref=name)


def stage_of(experiment: Experiment) -> str:
    """Where it is, so that an open page can tell whether that is still so."""
    return f"{experiment.stage}{' paused' if experiment.paused else ''}"


async def _found(here: Here, experiment: Experiment, newest: Look | None) -> dict[str, Any]:
    """The newest verdict, and the looks that led to it."""
    words = {"kinds": KINDS, "unit_of": unit_of, "stage": stage_of(experiment)}
    if newest is None:
        return {"verdict": None, "at": None, "metrics": [], **words}
    verdict = verdict_of(newest.verdict)
    history = await looks.history(here.rooms.db, experiment.id, LOOKS)
    return {"verdict": verdict, "at": newest.at, "metrics": by_metric(verdict, history), **words}
