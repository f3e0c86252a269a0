"""/ofrep/v1: which variant a user gets, for OpenFeature's clients (OFREP 0.3.0, its core).

An alias is a flag, its variant's name the value. It is decided by the same pure function as a request's own, from this
worker's snapshot: no database, no engine. An evaluation is no exposure: nothing is recorded, nobody is counted. It is
described by OFREP's own document, and its errors are OFREP's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from gateway.api.bodies import RoomsHere, parse, read_limited
from gateway.domain import BASE, Alias, Tenant, Unit
from gateway.errors import GatewayError, InvalidRequest, ModelNotFound
from gateway.serving.auth import authenticate, shown
from gateway.serving.routing import assign
from gateway.snapshot import Current, Snapshot

MOST_BYTES = 64 * 1024
"""Of a context: clients send all that they know of a user with each evaluation."""
_MOST_NAME = 512
"""Bytes of a targeting key or an episode, as in the headers of a request."""
_NO_KEY, _BAD_CONTEXT = "TARGETING_KEY_MISSING", "INVALID_CONTEXT"


class OfrepRoute(APIRoute):
    """A route whose errors have OFREP's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def door(request: Request) -> Response:
            try:
                return await answer(request)
            except GatewayError as error:
                body = _failure(error, request.path_params.get("key"))
                headers = {"retry-after": str(error.retry_after)} if error.retry_after is not None else None
                return _json(body, error.status, headers)

        return door


router = APIRouter(prefix="/ofrep/v1/evaluate", tags=["ofrep"], route_class=OfrepRoute, include_in_schema=False)


@router.post("/flags/{key}")
async def evaluate(key: str, request: Request, rooms: RoomsHere) -> Response:
    """One alias, for the user in `context`."""
    tenant, snapshot = _asking(request, rooms.current)
    context = await _context(request)
    alias = snapshot.aliases.get((tenant.name, key))
    if alias is None:
        raise ModelNotFound(key)
    return _json(_evaluated(snapshot, tenant, alias, context))


@router.post("/flags")
async def evaluate_all(request: Request, rooms: RoomsHere) -> Response:
    """Every alias of the tenant. The ETag changes as soon as one of the answers does."""
    tenant, snapshot = _asking(request, rooms.current)
    context = await _context(request)
    flags: list[dict[str, Any]] = []
    for name in sorted(name for owner, name in snapshot.aliases if owner == tenant.name):
        try:
            flags.append(_evaluated(snapshot, tenant, snapshot.aliases[tenant.name, name], context))
        except GatewayError as error:
            flags.append(_failure(error, name))
    answer = _json({"flags": flags})
    tag = f'"{hashlib.blake2b(bytes(answer.body), digest_size=16).hexdigest()}"'
    answer.headers["etag"] = tag
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return Response(status_code=304, headers={"etag": tag}) if tag in known or "*" in known else answer


def _asking(request: Request, current: Current) -> tuple[Tenant, Snapshot]:
    """The tenant whose key comes in `Authorization` or in `X-API-Key`; and one picture of all."""
    snapshot = current.snapshot
    tenant, _ = authenticate(shown(dict(request.headers.raw)), snapshot, stale=current.stale)
    return tenant, snapshot


async def _context(request: Request) -> tuple[str, str | None]:
    """Targeting key and episode of the evaluation context."""
    body = parse(await read_limited(request, MOST_BYTES))
    context = body.get("context", {}) if isinstance(body, dict) else None
    if not isinstance(context, dict):
        raise InvalidRequest("The evaluation context is no object.", param="context", code=_BAD_CONTEXT)
    key = _name(context, "targetingKey")
    if key is None:
        raise InvalidRequest(
            "The evaluation context has no targeting key.",
            remedy="Send what the request will carry as `x-targeting-key`, or as its `user`.",
            param="targetingKey",
            code=_NO_KEY,
        )
    return key, _name(context, "episode_id")


def _name(context: Mapping[str, Any], field: str) -> str | None:
    value = context.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value.encode()) > _MOST_NAME:
        raise InvalidRequest(f"`{field}` is not a string of up to {_MOST_NAME} bytes.", param=field, code=_BAD_CONTEXT)
    return value


def _evaluated(snapshot: Snapshot, tenant: Tenant, alias: Alias, context: tuple[str, str | None]) -> dict[str, Any]:
    key, episode = context
    unit = alias.split.unit if alias.split is not None else Unit.TARGETING_KEY
    if unit is Unit.INFERENCE:
        raise InvalidRequest(
            "This alias draws a variant for each request.",
            remedy="Read it from the answer's header `x-variant`.",
            code=_BAD_CONTEXT,
        )
    if unit is Unit.EPISODE and episode is None:
        raise InvalidRequest(
            "This alias draws a variant for each episode, and the context names none.",
            remedy="Send the episode's `x-episode-id` as `episode_id` in the context.",
            code=_BAD_CONTEXT,
        )
    drawn = assign(snapshot, tenant, alias.name, key, episode)
    metadata: dict[str, Any] = {"adapter": str(drawn.ref) if drawn.ref is not None else BASE}
    metadata["alias_revision"] = drawn.revision
    if drawn.experiment is not None:
        metadata["experiment"] = drawn.experiment
    told = {"key": alias.name, "value": drawn.variant, "variant": drawn.variant, "reason": drawn.reason.upper()}
    return {**told, "metadata": metadata}


def _failure(error: GatewayError, key: str | None) -> dict[str, Any]:
    if isinstance(error, ModelNotFound):
        code = "FLAG_NOT_FOUND"
    elif error.code in (_NO_KEY, _BAD_CONTEXT):
        code = str(error.code)
    else:
        code = "PARSE_ERROR" if isinstance(error, InvalidRequest) else "GENERAL"
    named = {"key": key} if key is not None else {}
    return {**named, "errorCode": code, "errorDetails": error.message}


def _json(body: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")
