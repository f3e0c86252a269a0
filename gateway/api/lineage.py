"""/admin/v1/tenants/{tenant}/…/lineage: which rows made a version, and which versions learnt from something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from adapters.lineage import LineageRow
from gateway.api.bodies import CallerHere, RoomsHere
from gateway.api.export import JSONL
from gateway.api.shapes import own_version
from gateway.api.staging import StagedRoute, staged
from gateway.api.tenants import OwnTenant
from gateway.control.lineage import Learnt, Who
from gateway.errors import InvalidRequest, PayloadTooLarge

router = APIRouter(prefix="/admin/v1/tenants/{tenant}", tags=["lineage"], route_class=StagedRoute)

MAX_BYTES = 1024**3
"""Of one version's lineage: some millions of rows."""

_LINES: dict[str, Any] = {JSONL: {"schema": LineageRow.model_json_schema()}}

TargetingKey = Annotated[str | None, Query(min_length=1, max_length=512, description="As its clients send it.")]
Unit = Annotated[str | None, Query(max_length=64, description="Its hash, as exports show it.")]
Id = Annotated[str | None, Query(min_length=1, max_length=64, pattern=r"^[^\x00]*$")]


@router.post(
    "/adapters/{name}/{version}/lineage",
    summary="Say which rows made a version, one a line, in place of what was said before",
    openapi_extra={"requestBody": {"required": True, "content": _LINES}},
)
async def record(
    request: Request, name: str, version: str, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere
) -> dict[str, Any]:
    ref = own_version(tenant, f"{tenant}/{name}@{version}")
    too_large = PayloadTooLarge(f"The lineage is larger than {MAX_BYTES} bytes.", remedy="Train on fewer rows.")
    async with staged(request, rooms.upload_dir, too_large, limit=MAX_BYTES) as file:
        rows = await rooms.lineages.record(ref, file, actor=caller.actor)
    return {"object": "lineage", "ref": str(ref), "rows": rows}


@router.get(
    "/adapters/{name}/{version}/lineage",
    summary="Which rows made a version, in their order",
    response_class=StreamingResponse,
    responses={200: {"content": _LINES, "description": "One row a line."}},
)
async def show(name: str, version: str, tenant: OwnTenant, rooms: RoomsHere) -> Response:
    rows = rooms.lineages.rows(own_version(tenant, f"{tenant}/{name}@{version}"))
    first = await anext(rows, None)  # before the status goes out: an unknown version is a 404
    return StreamingResponse(_lines(first, rows), media_type=JSONL)


@router.get("/lineage", summary="Which versions learnt from a user, an answer or a feedback")
async def look_up(
    tenant: OwnTenant,
    rooms: RoomsHere,
    targeting_key: TargetingKey = None,
    unit: Unit = None,
    inference_id: Id = None,
    feedback_id: Id = None,
) -> dict[str, Any]:
    given = [one for one in (targeting_key, unit, inference_id, feedback_id) if one is not None]
    if len(given) != 1:
        raise InvalidRequest("Give one of targeting_key, unit, inference_id and feedback_id.", param="unit")
    whose: str | None
    if inference_id is not None:
        whose, learnt = await rooms.lineages.of_inference(tenant, inference_id)
    elif feedback_id is not None:
        whose, learnt = await rooms.lineages.of_feedback(tenant, feedback_id)
    else:
        whose, learnt = await rooms.lineages.of_user(tenant, Who(targeting_key, unit))
    return {"object": "list", "unit": whose, "data": list(map(_row, learnt))}


def _row(one: Learnt) -> dict[str, Any]:
    part = one.part
    return {"ref": str(part.ref), "rows": part.rows, "retired": part.retired, "serving": list(one.serving)}


async def _lines(first: LineageRow | None, rest: AsyncIterator[LineageRow]) -> AsyncIterator[bytes]:
    if first is None:
        return
    yield first.to_json().encode() + b"\n"
    async for row in rest:
        yield row.to_json().encode() + b"\n"
