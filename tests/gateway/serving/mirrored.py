"""Requests that are over, as the door leaves them, and shadows before a real fake engine that has their candidate."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from gateway.domain import ApiKey, Assignment, Inference, Shadow, Tenant
from gateway.engine import fake
from gateway.engine.client import HttpEngine
from gateway.engine.fake_engine import FakeEngine, Options
from gateway.identity import new_inference_id
from gateway.serving.request import CHAT_COMPLETIONS, Endpoint, Request, parse
from gateway.serving.residency import Residency
from gateway.serving.routing import assign
from gateway.serving.shadow import Shadows
from gateway.settings import TimeoutSettings
from gateway.snapshot import Current, Snapshot
from tests.gateway.serving.house import (
    BASE_MODEL,
    HELLO,
    SECRET,
    DirectoryShelf,
    Kept,
    alias,
    key,
    picture,
    ref,
    until,
)

ONE, TWO = ref("acme/support@1"), ref("acme/support@2")
ALL = Shadow(TWO, 1.0)
ASKED = {"model": "tuned", "messages": HELLO, "max_tokens": 4, "temperature": 0.5}


def mirrored(shadow: Shadow | None = ALL, **more: Any) -> Snapshot:
    """A picture whose alias `tuned` serves support@1 and has a shadow."""
    return picture(aliases=[alias("acme", "tuned", ("tuned", 1, str(ONE)), shadow=shadow)], **more)


@dataclass
class Sent:
    body: bytes


@dataclass
class Over:
    """A request that is over, as the door leaves it."""

    snapshot: Snapshot
    request: Request | None
    assignment: Assignment | None
    endpoint: Endpoint = CHAT_COMPLETIONS
    tenant: Tenant | None = None
    key: ApiKey | None = field(default_factory=lambda: key("acme"))
    id: str = field(default_factory=lambda: new_inference_id(SECRET, "acme"))
    targeting_key: str = "user-1"
    episode: str | None = "talk-1"
    call: Sent = field(default_factory=lambda: Sent(b"{}"))
    status: int = 200
    outcome: str = "ok"

    @property
    def keeps(self) -> bool:
        return self.tenant is not None and self.tenant.store_content


def over(
    snapshot: Snapshot, body: dict[str, Any] | None = None, endpoint: Endpoint = CHAT_COMPLETIONS, **more: Any
) -> Over:
    """An answered request of acme's, read and assigned as the door does it."""
    tenant = snapshot.tenants["acme"]
    request = parse(msgspec.json.encode(body or ASKED), endpoint)
    return replace(Over(snapshot, request, assign(snapshot, tenant, request.model, "user-1"), endpoint, tenant), **more)


@dataclass
class Stage:
    """A candidate on a real engine, and the shadows before it."""

    snapshot: Snapshot
    engine: FakeEngine
    residency: Residency
    shadows: Shadows
    running: asyncio.Task[None]
    rows: list[Inference]

    def consider(self, times: int = 1, **changes: Any) -> Over:
        for _ in range(times):
            exchange = over(self.snapshot, **changes)
            self.shadows.consider(exchange)
        return exchange

    async def recorded(self, number: int = 1) -> Inference:
        await until(lambda: len(self.rows) == number)
        return self.rows[-1]

    def asked(self) -> list[dict[str, Any]]:
        """The bodies of what the engine was sent, probes left out."""
        return [one["body"] for one in self.engine.seen if "cache_salt" in (one["body"] or {})]

    @property
    def nothing_is_left(self) -> bool:
        return not (self.shadows.open or self.engine.counts["in_flight"] or self.residency.leased)


@asynccontextmanager
async def stage(snapshot: Snapshot | None = None, *, loaded: bool = True, **bounds: Any) -> AsyncIterator[Stage]:
    """Everything up and ready, with the candidate on the engine if `loaded`, and down again."""
    snapshot = snapshot or mirrored()
    async with fake.running(Options(base_model=BASE_MODEL, tokens=6)) as running, asyncio.TaskGroup() as group:
        times = TimeoutSettings(connect=2, first_byte=3, idle=2)
        engine = HttpEngine(running.url, base_model=BASE_MODEL, timeouts=times)
        with tempfile.TemporaryDirectory(prefix="tl-shelf-") as root:
            if not loaded:
                running.engine.faults.refuse = [str(TWO)]
            residency = Residency(engine, DirectoryShelf(Path(root)), Current(snapshot, stale=False))
            kept = Kept()
            shadows = Shadows(engine, residency, kept, **bounds)
            tasks = [group.create_task(residency.run()), group.create_task(shadows.run())]
            await until(lambda: residency.ready and (TWO in residency.resident or not loaded))
            yield Stage(snapshot, running.engine, residency, shadows, tasks[1], kept.rows)
            for task in tasks:
                task.cancel()
        await engine.aclose()
