"""`GET /v1/models`: what a tenant may put in `model`, in OpenAI's shape. Never a path or another tenant's."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import msgspec

from gateway.domain import Tenant
from gateway.errors import GatewayError, MethodNotAllowed, ModelNotFound, NotFound
from gateway.serving.auth import authenticate, shown
from gateway.serving.call import Call, request_id
from gateway.serving.routing import names
from gateway.snapshot import Snapshot

PATH = "/v1/models"


def answer(call: Call, snapshot: Snapshot, *, stale: bool) -> int:
    """Answer `GET /v1/models` and `GET /v1/models/{model}`, refuse what only begins like them; returns the status."""
    try:
        call.reply(_body(call, snapshot, stale=stale), b"content-type: application/json\r\n" + request_id())
    except GatewayError as error:
        call.refuse(error)
        return error.status
    return 200


def _body(call: Call, snapshot: Snapshot, *, stale: bool) -> bytes:
    if call.refusal is not None:
        raise call.refusal
    if call.path != PATH and not call.path.startswith(PATH + "/"):
        raise NotFound(f"Unknown request URL: {call.method} {call.path[:200]}.", code="unknown_url")
    if call.method != "GET":
        raise MethodNotAllowed(f"Not allowed to {call.method} on {call.path[:200]}.", remedy="Use GET.")
    tenant, _ = authenticate(shown(call.headers), snapshot, stale=stale)
    if call.path == PATH:
        return listing(snapshot, tenant)
    return card(snapshot, tenant, unquote(call.path.removeprefix(PATH + "/")))


def listing(snapshot: Snapshot, tenant: Tenant) -> bytes:
    """All of them."""
    return msgspec.json.encode({"object": "list", "data": [_card(name, tenant) for name in names(snapshot, tenant)]})


def card(snapshot: Snapshot, tenant: Tenant, model: str) -> bytes:
    """One of them. Raises `ModelNotFound`."""
    if model not in names(snapshot, tenant):
        raise ModelNotFound(model)
    return msgspec.json.encode(_card(model, tenant))


def _card(name: str, tenant: Tenant) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": tenant.name}
