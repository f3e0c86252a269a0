"""/admin/v1/tenants/{tenant}/adapters: register a version that is in the store, upload one, list, fetch, retire.

An upload goes to a file as it comes, and a version goes out piece by piece: its size costs disk and no memory.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field, ValidationError
from starlette.responses import Response, StreamingResponse

from adapters.package import sizes_of, tar_of, tar_size
from adapters.ref import AdapterRef, is_slug
from gateway.api.bodies import MAX_JSON_BYTES, CallerHere, RoomsHere, parse, read_limited
from gateway.api.errors import describe
from gateway.api.shapes import MAX_PAGE, Body, RefText, own_version, page
from gateway.api.staging import StagedRoute, staged
from gateway.api.tenants import OwnTenant
from gateway.control.names import unknown_adapter
from gateway.domain import Adapter
from gateway.errors import InvalidRequest, PayloadTooLarge

router = APIRouter(prefix="/admin/v1/tenants/{tenant}", tags=["adapters"], route_class=StagedRoute)

TAR = "application/x-tar"


class Registration(Body):
    """A version that a trainer has published into the shared store."""

    ref: RefText = Field(description="`support@1` or `acme/support@1`.", examples=["acme/support@1"])


_TWO_KINDS_OF_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": Registration.model_json_schema()},
            TAR: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "/adapters",
    status_code=201,
    summary="Register a version from the shared store, or upload a tar of one (with ?name=)",
    openapi_extra=_TWO_KINDS_OF_BODY,
)
async def register(
    request: Request,
    tenant: OwnTenant,
    rooms: RoomsHere,
    caller: CallerHere,
    name: Annotated[str | None, Query(max_length=64, description="of an uploaded adapter; the version is ours")] = None,
) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != TAR:
        ref = own_version(tenant, (await _registration(request)).ref)
        return _row(await rooms.adapters.register(ref, actor=caller.actor))
    if name is None or not is_slug(name):
        raise InvalidRequest(
            "An upload needs a name for its adapter.", remedy="Add ?name=support, in a-z 0-9 . _ -", param="name"
        )
    limit = rooms.max_adapter_bytes
    async with staged(request, rooms.upload_dir, _too_large(limit), limit=limit) as tar:
        return _row(await rooms.adapters.upload(tenant, name, tar, actor=caller.actor))


@router.get("/adapters", summary="List the registered versions, retired ones too")
async def index(
    tenant: OwnTenant,
    rooms: RoomsHere,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
    after: Annotated[str | None, Query(max_length=160)] = None,
) -> dict[str, Any]:
    rows = [_row(adapter) for adapter in await rooms.adapters.list(tenant)]
    return page(rows, key="ref", limit=limit, after=after)


@router.get("/adapters/{name}/{version}", summary="A version's manifest: files, lineage, metrics")
async def show(name: str, version: str, tenant: OwnTenant, rooms: RoomsHere) -> dict[str, Any]:
    ref = own_version(tenant, f"{tenant}/{name}@{version}")
    manifest = await rooms.adapters.describe(ref)
    return {"object": "adapter", "ref": str(ref), "manifest": manifest.model_dump(mode="json")}


@router.get(
    "/adapters/{name}/{version}/archive",
    summary="A version's three files as a plain tar",
    response_class=StreamingResponse,
    responses={200: {"content": {TAR: {"schema": {"type": "string", "format": "binary"}}}, "description": "The tar."}},
)
async def archive(name: str, version: str, tenant: OwnTenant, rooms: RoomsHere) -> Response:
    """What an upload takes: another gateway, or a trainer that goes on from this version, reads it as it is."""
    ref = own_version(tenant, f"{tenant}/{name}@{version}")
    sizes = sizes_of(await rooms.adapters.files(ref))
    headers = {
        "content-length": str(tar_size(sizes)),
        "content-disposition": f'attachment; filename="{ref.name}-{ref.version}.tar"',
    }
    return StreamingResponse(tar_of(sizes), media_type=TAR, headers=headers)


@router.post("/adapters/{name}/{version}/retire", summary="Retire a version: it takes no new traffic, ever")
async def retire(name: str, version: str, tenant: OwnTenant, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    ref = own_version(tenant, f"{tenant}/{name}@{version}")
    await rooms.adapters.retire(ref, actor=caller.actor)
    for adapter in await rooms.adapters.list(tenant):
        if adapter.ref == ref:
            return _row(adapter)
    raise unknown_adapter(ref)


async def _registration(request: Request) -> Registration:
    try:
        return Registration.model_validate(parse(await read_limited(request, MAX_JSON_BYTES)))
    except ValidationError as error:
        raise describe(error.errors()) from error


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The adapter is larger than {limit} bytes.",
        remedy="Train with a lower rank or fewer target modules, or raise GATEWAY_MAX_ADAPTER_BYTES.",
    )


def _row(adapter: Adapter) -> dict[str, Any]:
    ref: AdapterRef = adapter.ref
    return {
        "object": "adapter",
        "ref": str(ref),
        "name": ref.name,
        "version": ref.version,
        "digest": adapter.digest,
        "rank": adapter.rank,
        "base_model": adapter.base_model,
        "retired": adapter.retired,
        "verdict": adapter.verdict,
        "reason": adapter.reason,
    }
