"""/admin/v1/tenants/{tenant}/metrics: what feedback may be about."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.shapes import Body, Name, listed
from gateway.api.tenants import OwnTenant
from gateway.domain import Metric, MetricKind

router = APIRouter(prefix="/admin/v1/tenants/{tenant}", tags=["metrics"], route_class=IdentifiedRoute)


class NewMetric(Body):
    """A metric's kind never changes: what was said before would lose its meaning.

    Of a `count` (whole numbers from 0) a user's values are summed. A `ratio` is never said: it divides the sums of two
    other metrics, each of them declared or automatic.
    """

    name: Name = Field(examples=["helpful"])
    kind: Literal["boolean", "float", "count", "ratio", "comment", "demonstration", "preference"] = Field(
        examples=["boolean"]
    )
    optimize: Literal["max", "min"] = Field("max", description="Whether larger (or true) is better, or smaller.")
    description: str = Field("", max_length=1000, examples=["the answer solved the ticket"])
    unit: str = Field("", max_length=20, description="What a person reads behind the number.", examples=["EUR"])
    numerator: Name | None = Field(None, description="Of a ratio.")
    denominator: Name | None = Field(None, description="Of a ratio.")


@router.post("/metrics", status_code=201, summary="Declare a metric")
async def declare(body: NewMetric, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    metric = Metric(
        tenant,
        body.name,
        MetricKind(body.kind),
        body.optimize,
        body.description,
        body.unit,
        body.numerator,
        body.denominator,
    )
    await rooms.metrics.declare(metric, actor=caller.actor)
    return _row(metric)


@router.get("/metrics", summary="List the declared metrics")
async def index(tenant: OwnTenant, rooms: RoomsHere) -> dict[str, Any]:
    return listed([_row(metric) for metric in await rooms.metrics.list(tenant)])


def _row(metric: Metric) -> dict[str, Any]:
    return {
        "object": "metric",
        "tenant": metric.tenant,
        "name": metric.name,
        "kind": metric.kind.value,
        "optimize": metric.optimize,
        "description": metric.description,
        "unit": metric.unit,
        "numerator": metric.numerator,
        "denominator": metric.denominator,
    }
