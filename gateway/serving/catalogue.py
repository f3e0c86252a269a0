"""`GET /v1/models`: what a tenant may put in `model`, in OpenAI's shape. Never a path or another tenant's."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.domain import Tenant
from gateway.errors import ModelNotFound
from gateway.serving.routing import names
from gateway.snapshot import Snapshot


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
