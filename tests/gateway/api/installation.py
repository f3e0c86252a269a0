"""The control plane's app as the composition root builds it, on a test's database, kept current by a real feed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import httpx
from fastapi import FastAPI
from starlette.routing import BaseRoute

from adapters.store import AdapterStore
from gateway import api
from gateway.api.rooms import Rooms
from gateway.control.feed import Feed
from gateway.control.lineage import Lineages
from gateway.control.users import Users
from gateway.errors import Unavailable
from gateway.evaluation.judging import Judging
from gateway.feedback.intake import Intake
from gateway.feedback.tallies import Tallies
from gateway.serving.call import Call
from gateway.snapshot import Current
from gateway.store.database import Database
from gateway.store.snapshots import read_version
from tests.gateway.control import rooms as control

ADMIN_KEY = "tl-admin-for-tests"


@dataclass(slots=True)
class Installation:
    """`call` is the operator's way in; `as_tenant` a tenant's."""

    app: FastAPI
    rooms: Rooms
    control: control.Rooms
    http: httpx.AsyncClient
    state: dict[str, str | None]
    changed: asyncio.Event

    @property
    def db(self) -> Database:
        return self.control.db

    @property
    def current(self) -> Current:
        return self.rooms.current

    async def request(
        self, method: str, path: str, body: Any = None, *, key: str | None = ADMIN_KEY, **more: Any
    ) -> httpx.Response:
        """One request; `body` goes as JSON unless `content` is among `more`."""
        headers: dict[str, str | bytes] = {"authorization": f"Bearer {key}".encode()} if key is not None else {}
        if body is not None:
            more["content"] = json.dumps(body)
            headers["content-type"] = "application/json"
        headers |= more.pop("headers", {})
        return await self.http.request(method, path, headers=headers, **more)

    async def call(self, method: str, path: str, body: Any = None, *, key: str = ADMIN_KEY) -> Any:
        """One admin call that must succeed; its JSON. Returns when this worker's snapshot has the change."""
        reply = await self.request(method, f"/admin/v1{path}", body, key=key)
        assert reply.is_success, reply.text
        await self.settle()
        return reply.json() if reply.content else None

    async def tenant(self, name: str, *scopes: str, store_content: bool = False) -> str:
        """A new tenant; the text of a key of it."""
        await self.call("POST", "/tenants", {"name": name, "store_content": store_content})
        return await self.key(name, *(scopes or ("inference", "feedback", "admin")))

    async def key(self, tenant: str, *scopes: str) -> str:
        made = await self.call("POST", f"/tenants/{tenant}/keys", {"scopes": list(scopes)})
        return str(made["key"])

    async def settle(self) -> None:
        """Wait until the snapshot is as new as the database."""
        async with asyncio.timeout(10):
            while True:
                self.changed.clear()
                if not self.current.stale and self.current.snapshot.version >= await read_version(self.db):
                    return
                await self.changed.wait()


class NoEngine:
    """In the door's place: refuses each call."""

    async def serve(self, call: Call) -> None:
        call.refuse(Unavailable("There is no engine here."))


async def _engine_view() -> dict[str, Any]:
    return {"base_model": "demo/tiny", "resident": ["acme/support@1", "rival/own@1"], "workers": [{"worker": "w"}]}


async def _render(messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool) -> list[int]:
    return [len(str(one["content"])) for one in messages] + [0] * add_generation_prompt


@cache
def _built() -> tuple[FastAPI, list[BaseRoute]]:
    app = api.build(cast(Any, None))
    return app, list(app.router.routes)


def _app(rooms: Rooms) -> FastAPI:
    """As `api.build(rooms)`, but one for all tests of a process, because to read every route's signature takes 0.1 s:
    there is one installation at a time, and what a test added to the app goes."""
    app, routes = _built()
    app.router.routes[:] = routes
    app.state.rooms, app.openapi_schema = rooms, None
    return app


@asynccontextmanager
async def installed(db: Database, directory: Path) -> AsyncIterator[Installation]:
    """An installation without workers or engine: swaps find nobody to wait for."""
    rooms = control.Rooms(db, AdapterStore(str(directory / "store"), cache=directory / "cache"), directory)
    current, state = Current(), dict[str, str | None](not_ready=None)
    changed = asyncio.Event()

    lineages = Lineages(db, current)
    built = Rooms(
        db=db,
        current=current,
        tenants=rooms.tenants,
        keys=rooms.keys,
        metrics=rooms.metrics,
        adapters=rooms.adapters,
        aliases=rooms.aliases,
        experiments=rooms.experiments,
        lineages=lineages,
        users=Users(db, lineages),
        intake=Intake(db, current),
        judging=Judging(db, Tallies(db)),
        door=NoEngine(),
        engine_view=_engine_view,
        render=_render,
        admin_key=ADMIN_KEY,
        max_adapter_bytes=200_000,
        upload_dir=directory / "uploads",
        readiness=lambda: state["not_ready"],
        metrics_text=lambda: b"# none\n",
    )
    app = _app(built)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http, asyncio.TaskGroup() as group:
        feed = group.create_task(Feed(db.url, db, current, on_change=changed.set).run())
        here = Installation(app, built, rooms, http, state, changed)
        await here.settle()
        yield here
        feed.cancel()
