"""The power calculator's answer: how many units an effect takes. The numbers are `feedback/power.py`'s."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from gateway.console.here import Fields, Here, Place
from gateway.console.reading import number_of, share_of, whole_number
from gateway.errors import InvalidRequest
from gateway.feedback.power import units_needed

router = APIRouter()
PLACE: Place | None = None


@router.post("/t/{tenant}/power")
async def work_out(here: Here, fields: Fields) -> Response:
    """A piece of the page; what is wrong is said in its place, since somebody is typing."""
    try:
        power = number_of(fields, "power", 0.8)
        ask = partial(
            units_needed,
            base=number_of(fields, "base"),
            effect=number_of(fields, "effect"),
            sd=number_of(fields, "sd") if fields.get("sd", "").strip() else None,
            alpha=number_of(fields, "alpha", 0.05),
            power=power,
            comparisons=whole_number(fields, "comparisons", 1),
            coverage=share_of(fields, "coverage", 1.0),
            units_per_day=number_of(fields, "units_per_day") if fields.get("units_per_day", "").strip() else None,
        )
        needed = await asyncio.to_thread(ask)
    except InvalidRequest as error:
        return here.part("power_answer.jinja", message=error.message)
    return here.part("power_answer.jinja", message=None, needed=needed, power=power)
