"""The HTTP edges of the control plane: parse, call a room, render. They decide nothing, and never see an inference."""

from __future__ import annotations

from fastapi import FastAPI

from gateway.api import (
    adapters,
    aliases,
    audit,
    engine,
    errors,
    experiments,
    export,
    feedback,
    health,
    keys,
    lineage,
    metrics,
    ofrep,
    power,
    shadows,
    tenants,
    tensorzero,
    users,
    verdicts,
)
from gateway.api.rooms import Rooms

_DESCRIPTION = """
One base model, many tenants, hot-swapped LoRA adapters, compared on live traffic.

Send `Authorization: Bearer KEY`: the installation's admin key, or a tenant's key with the scope `admin` for its own.
Errors have OpenAI's shape. Inference (`/v1/chat/completions`, `/v1/completions`, `/v1/models`) is OpenAI's own API.
"""


def build(rooms: Rooms) -> FastAPI:
    """The app for everything that is not inference. No page of it loads anything from elsewhere, so none is shipped:
    the description is JSON, at /admin/v1/openapi.json."""
    app = FastAPI(
        title="Tuneloop",
        version="1",
        description=_DESCRIPTION,
        openapi_url="/admin/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.rooms = rooms
    errors.install(app)
    for room in (
        health,
        feedback,
        tenants,
        keys,
        metrics,
        adapters,
        aliases,
        shadows,
        experiments,
        export,
        lineage,
        users,
        verdicts,
        power,
        engine,
        audit,
        ofrep,
        tensorzero,
    ):
        app.include_router(room.router)
    return app
