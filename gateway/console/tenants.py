"""The operator's page of all tenants: what each keeps and may use, what it used, and a new one."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from gateway.console import limiting
from gateway.console.here import Fields, OperatorHere, Place
from gateway.console.reading import number_of
from gateway.console.waiting import until

router = APIRouter()
PLACE = Place("tenants", "All tenants", operator=True)


@router.get("/tenants")
async def index(here: OperatorHere) -> Response:
    """By name."""
    tenants = await here.rooms.tenants.list()
    used = await limiting.used(here.rooms.db, [f"tenant:{one.name}" for one in tenants])
    return here.page(
        "tenants.jinja",
        title="Tenants",
        rows=[(one, limiting.short(one.limits), used.get(f"tenant:{one.name}")) for one in tenants],
        known=here.rooms.current.snapshot.tenants,
    )


@router.post("/tenants")
async def create(here: OperatorHere, fields: Fields) -> Response:
    """A tenant; its first key is made on its own page."""
    name = fields.get("name", "").strip()
    await here.rooms.tenants.create(
        name,
        store_content=fields.get("store_content") == "yes",
        allow_pinning=fields.get("allow_pinning") == "yes",
        weight=number_of(fields, "weight", 1.0),
        actor=here.actor,
    )
    await until(lambda: name in here.rooms.current.snapshot.tenants)  # the next page asks it
    return RedirectResponse("/console/tenants", status_code=303)
