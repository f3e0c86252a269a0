"""/admin/v1/engine: the base model, its limits, what is resident where, and how it renders a chat.

A tenant's key sees its own part.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from gateway.api.auth import require_admin
from gateway.api.bodies import CallerHere, IdentifiedRoute, RoomsHere
from gateway.api.shapes import Body
from gateway.serving.messages import messages
from gateway.serving.residency import Residency
from gateway.settings import Settings
from gateway.store import workers
from gateway.store.database import Database

router = APIRouter(prefix="/admin/v1", tags=["engine"], route_class=IdentifiedRoute)


class Chat(Body):
    """As OpenAI's API has it."""

    messages: list[Any] = Field(examples=[[{"role": "user", "content": "hello"}]])
    add_generation_prompt: bool = Field(True, description="Whether the beginning of an answer follows.")


@router.get("/engine", summary="The engine and, for the operator, the workers in front of it")
async def show(rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    """A tenant's trainer needs the limits; other tenants' adapters and the machinery are not its business."""
    require_admin(caller)
    view = await rooms.engine_view()
    if caller.tenant is None:
        return view
    own = [ref for ref in view["resident"] if ref.startswith(f"{caller.tenant.name}/")]
    return {name: value for name, value in view.items() if name != "workers"} | {"resident": own}


@router.post("/engine/render", summary="The token ids of a chat, as the engine's own template and tokenizer make them")
async def render(body: Chat, rooms: RoomsHere, caller: CallerHere) -> dict[str, Any]:
    """For a trainer to compare its own with: an adapter trained on another template serves badly and never says so."""
    require_admin(caller)
    chat = messages("messages", [dict(one) if isinstance(one, dict) else one for one in body.messages])
    return {"ids": await rooms.render(chat, add_generation_prompt=body.add_generation_prompt)}


async def view_of(settings: Settings, revision: str | None, database: Database, residency: Residency) -> dict[str, Any]:
    """The engine as an operator and the trainer see it: what it serves, can take and holds, and who uses it.

    `base_revision` and `max_model_len` are None where they are not known.
    """
    status = residency.status
    return {
        "base_model": settings.base_model,
        "base_revision": revision,
        "kind": settings.engine.kind,
        "plugin": bool(status and status.plugin),
        "ready": residency.ready,
        "boot_id": residency.boot,
        "max_rank": status.max_rank if status else 0,
        "slots": status.slots if status else 0,
        "capacity": status.capacity if status else 0,
        "max_model_len": (status.max_model_len or None) if status else None,
        "resident": sorted(map(str, residency.resident)),
        "workers": [
            {"worker": one.worker, "ready": one.ready, "snapshot_version": one.snapshot_version}
            for one in await workers.live(database)
        ],
    }
