"""GET /admin/v1/export: a tenant's judged traffic as rows to learn from or with all that was said, one a line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import AfterValidator
from starlette.responses import Response, StreamingResponse

from adapters.examples import Example
from adapters.judgements import Judged
from gateway.api.auth import own_tenant, require_admin
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.shapes import Name
from gateway.errors import InvalidRequest
from gateway.feedback.export import examples, judged

router = APIRouter(prefix="/admin/v1", tags=["export"], route_class=IdentifiedRoute)

JSONL = "application/jsonl"
_LINE = {"anyOf": [Example.model_json_schema(), Judged.model_json_schema()]}


def _sensible(moment: datetime) -> datetime:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not 2000 <= aware.year < 2200:  # PostgreSQL's and Python's calendars end elsewhere than RFC 3339's
        raise ValueError("give a moment between the years 2000 and 2200")
    return aware


@router.get(
    "/export",
    summary="Stream training rows, or judged answers",
    response_class=StreamingResponse,
    responses={200: {"content": {JSONL: {"schema": _LINE}}, "description": "One row a line."}},
)
async def export(
    rooms: RoomsHere,
    caller: CallerHere,
    tenant: Annotated[str | None, Query(max_length=64, description="Your own, when left out.")] = None,
    alias: Name | None = None,
    metric: Name | None = None,
    since: Annotated[datetime, AfterValidator(_sensible)] | None = None,
    form: Annotated[
        Literal["examples", "judged"], Query(alias="format", description="Each answer's best label, or all feedback.")
    ] = "examples",
) -> Response:
    require_admin(caller)
    mine = caller.tenant.name if caller.tenant else None
    named = mine if tenant is None else tenant
    if named is None:
        raise InvalidRequest(
            "Which tenant?", remedy="Add ?tenant=NAME.", param="tenant", code="missing_required_parameter"
        )
    read = judged if form == "judged" else examples
    rows: AsyncIterator[Example | Judged] = read(
        rooms.db, own_tenant(caller, named), alias=alias, metric=metric, since=since
    )
    # The first row is read before the status goes out, so that what can fail at once fails with a status.
    first = await anext(rows, None)
    return StreamingResponse(_lines(first, rows), media_type=JSONL)


async def _lines(first: Example | Judged | None, rest: AsyncIterator[Example | Judged]) -> AsyncIterator[bytes]:
    if first is None:
        return
    yield first.to_json().encode() + b"\n"
    async for row in rest:
        yield row.to_json().encode() + b"\n"
