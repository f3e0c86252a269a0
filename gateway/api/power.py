"""/admin/v1/power: how many users an experiment needs, asked before it starts."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, FiniteFloat

from gateway.api.auth import require_admin
from gateway.api.bodies import CallerHere, IdentifiedRoute
from gateway.api.shapes import Body
from gateway.feedback.power import units_needed

router = APIRouter(prefix="/admin/v1", tags=["experiments"], route_class=IdentifiedRoute)

Weights = Annotated[list[Annotated[FiniteFloat, Field(gt=0, le=1e6)]], Field(min_length=2, max_length=16)]


class Question(Body):
    """Which difference is to be found, and how certainly. Left out: as an experiment has it by itself."""

    base: FiniteFloat = Field(description="The control's mean: a rate, or with `sd` any number.", examples=[0.3])
    effect: FiniteFloat = Field(description="The smallest difference worth knowing.", examples=[0.05])
    relative: bool = Field(False, description="`effect` is a share of `base`.")
    sd: FiniteFloat | None = Field(None, description="Of single measurements; left out for a rate.")
    alpha: FiniteFloat = Field(0.05, ge=1e-6, lt=1)
    power: FiniteFloat = Field(0.8, gt=0, le=0.999, description="The chance to find it.")
    comparisons: int = Field(1, ge=1, le=100, description="Goals times candidates.")
    weights: Weights = Field([1.0, 1.0], description="The control's first.")
    per_unit: FiniteFloat = Field(1.0, ge=1, le=1e6, description="How often a user is measured.")
    correlation: FiniteFloat = Field(0.0, ge=0, le=1, description="How alike one user's measurements are.")
    coverage: FiniteFloat = Field(1.0, gt=0, le=1, description="The share of users that is measured at all.")
    units_per_day: FiniteFloat | None = Field(None, gt=0)


@router.post("/power", summary="How many users an experiment needs")
async def power(body: Question, caller: CallerHere) -> dict[str, Any]:
    """`planned_units` is for the plan. Of experiments with such a difference, half are conclusive after
    `typical_units`, the wanted share after `units`; a test with one look at its end takes `fixed_units`."""
    require_admin(caller)
    needed = await asyncio.to_thread(units_needed, **body.model_dump())  # it simulates for a tenth of a second
    return {"object": "power", **asdict(needed)}
