"""The data plane with nothing else: a snapshot in memory, the shipped fake engine, uvicorn on a real socket.

    async with open_house() as house:
        answer = await house.client().chat.completions.create(model="support", messages=HELLO)

No PostgreSQL: the data plane needs memory and the engine only. Two tenants, `acme` and `zeta`, each with a key,
adapters `support@1` and `support@2`, an alias `support` (half base, half tuned) and an alias `tuned` (support@1 only).
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import uvicorn

from adapters.ref import AdapterRef
from gateway.control.buckets import dealt
from gateway.domain import Adapter, Alias, ApiKey, Inference, Scope, Split, Tenant, Unit, Variant
from gateway.engine import fake
from gateway.engine.client import HttpEngine
from gateway.engine.fake_engine import Options
from gateway.identity import hash_key
from gateway.serving.admission import Admission
from gateway.serving.door import Door
from gateway.serving.front import Front
from gateway.serving.ledger import Ledger
from gateway.serving.limits import Limiter
from gateway.serving.residency import Residency
from gateway.serving.shadow import Shadows
from gateway.settings import TimeoutSettings
from gateway.snapshot import Current, Snapshot
from gateway.telemetry import Telemetry
from tests.gateway.spans import KeptSpans

BASE_MODEL = "test/base"
SECRET = b"the secret of this installation!"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
ACME, ZETA = "key-of-acme", "key-of-zeta"


def ref(text: str) -> AdapterRef:
    return AdapterRef.parse(text)


def adapter(text: str, **changes: Any) -> Adapter:
    one = Adapter(ref(text), digest=f"sha256:{text}", rank=8, base_model=BASE_MODEL)
    return replace(one, **changes)


def alias(tenant: str, name: str, *variants: tuple[str, float, str | None], **more: Any) -> Alias:
    """`variants` are (name, weight, ref or None for the base model). An `experiment` deals out everybody by the weights
    unless a `split` says otherwise."""
    arms = tuple(Variant(arm, weight, ref(what) if what else None) for arm, weight, what in variants)
    salt = more.pop("salt", f"{tenant}:{name}")
    if more.get("experiment") is not None and "split" not in more:
        buckets = dealt({arm.name: arm.weight for arm in arms})
        more["split"] = Split(Unit.TARGETING_KEY, salt, ((0.0, 1.0),), buckets)
    return Alias(tenant, name, more.pop("revision", 1), arms, salt, **more)


def picture(
    *,
    version: int = 1,
    tenants: Iterable[Tenant] = (Tenant("acme"), Tenant("zeta")),
    aliases: Iterable[Alias] | None = None,
    adapters: Iterable[Adapter] | None = None,
    keys: dict[str, ApiKey] | None = None,
    **more: Any,
) -> Snapshot:
    """A snapshot of the two tenants; name what should differ."""
    names = ("acme", "zeta")
    if aliases is None:
        aliases = [alias(t, "support", ("base", 1, None), ("tuned", 1, f"{t}/support@1")) for t in names]
        aliases += [alias(t, "tuned", ("tuned", 1, f"{t}/support@1")) for t in names]
    if adapters is None:
        adapters = [adapter(f"{t}/support@{v}") for t in names for v in (1, 2)]
    given = keys or {ACME: key("acme"), ZETA: key("zeta")}
    return Snapshot(
        version=version,
        secret=SECRET,
        tenants={one.name: one for one in tenants},
        keys={hash_key(text): one for text, one in given.items()},
        aliases={(one.tenant, one.name): one for one in aliases},
        adapters={one.ref: one for one in adapters},
        **more,
    )


def key(tenant: str, *scopes: Scope, **more: Any) -> ApiKey:
    return ApiKey(f"id-of-{tenant}", tenant, frozenset(scopes or (Scope.INFERENCE,)), **more)


class DirectoryShelf:
    """Adapters as directories under one root, made when first asked for: the fake knows an empty one by its name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened: list[AdapterRef] = []

    async def path(self, ref: AdapterRef) -> Path:
        self.opened.append(ref)
        path = self.root / str(ref).replace("/", "_")
        path.mkdir(exist_ok=True)
        return path


@dataclass(frozen=True)
class Signals:
    """Telemetry's settings, and nothing sent anywhere."""

    trace_ratio: float = 1.0
    otlp_signals: frozenset[str] = frozenset()


@dataclass
class Kept:
    """The recorder's place: what the door recorded, in memory."""

    rows: list[Inference] = field(default_factory=list)

    def record(self, inference: Inference) -> None:
        self.rows.append(inference)


@dataclass
class House:
    url: str
    current: Current
    residency: Residency
    door: Door
    shadows: Shadows
    shelf: DirectoryShelf
    telemetry: Telemetry
    spans: KeptSpans
    records: Kept
    engine_url: str
    http: httpx.AsyncClient
    admission: Admission

    def client(self, key: str = ACME, **more: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=more.pop("max_retries", 0), **more
        )

    async def post(
        self, body: Any, *, key: str = ACME, path: str = "/v1/chat/completions", **headers: str
    ) -> httpx.Response:
        """One raw request. `headers` are written with underscores."""
        told = {"authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            return await self.http.post(self.url + path, content=body, headers=told)
        return await self.http.post(self.url + path, json=body, headers=told)

    async def faults(self, **switches: Any) -> None:
        (await self.http.post(f"{self.engine_url}/fake/faults", json=switches)).raise_for_status()

    async def engine(self) -> dict[str, Any]:
        """The fake's insides."""
        return dict((await self.http.get(f"{self.engine_url}/fake/state")).json())

    async def upstream(self) -> dict[str, Any]:
        """The last completion request as the engine got it, probes left out."""
        seen = [one for one in (await self.engine())["requests"] if "cache_salt" in (one["body"] or {})]
        return dict(seen[-1])


async def until(true: Callable[[], Any], *, seconds: float = 5.0) -> None:
    """Wait until a condition holds (a plain function or a coroutine function)."""
    async with asyncio.timeout(seconds):
        while True:
            told = true()
            if (await told) if asyncio.iscoroutine(told) else told:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def open_house(
    snapshot: Snapshot | None = None,
    *,
    options: Options | None = None,
    engine_url: str | None = None,
    ready: bool = True,
    shelf: type[DirectoryShelf] = DirectoryShelf,
    telemetry: Telemetry | None = None,
    max_body_bytes: int = 1 << 20,
    head_seconds: float = 10.0,
    body_seconds: float = 30.0,
    other: Any = None,
    timeouts: TimeoutSettings | None = None,
    seconds: float = 60,
    lane: bool = True,
    **residency: Any,
) -> AsyncIterator[House]:
    """Everything up, ready, and down again. `engine_url`: an engine that runs elsewhere, not one in this process.
    `other`: the ASGI application beside the door. `seconds`: the longest that all of it may take."""
    limit = max(10, seconds / 6)
    async with asyncio.timeout(seconds), _engine(options, engine_url) as url, httpx.AsyncClient(timeout=limit) as http:
        with tempfile.TemporaryDirectory(prefix="tl-shelf-") as root:
            current = Current(snapshot or picture(), stale=False)
            times = timeouts or TimeoutSettings(connect=2, first_byte=3, idle=2)
            engine = HttpEngine(url, base_model=BASE_MODEL, timeouts=times, lane=lane)
            shelf_, records, spans = shelf(Path(root)), Kept(), KeptSpans()
            telemetry = telemetry or Telemetry(Signals(), span_sender=spans)
            there = Residency(engine, shelf_, current, **residency)
            waits = {"head_seconds": head_seconds, "body_seconds": body_seconds}
            bounds: Any = {"timeouts": times, "max_body_bytes": max_body_bytes, **waits}
            shadows = Shadows(engine, there, records, telemetry=telemetry)
            there.places.on_yield = shadows.give_way
            limiter, admission = Limiter(Ledger.create()), Admission(clock=asyncio.get_running_loop().time)
            door = Door(current, engine, there, records, telemetry, shadows, limiter, admission, **bounds)
            async with _served(door, there, shadows, other) as address:
                if ready:
                    await until(lambda: there.ready)
                rooms = (current, there, door, shadows, shelf_, telemetry, spans, records)
                yield House(address, *rooms, url, http, admission)
            await engine.aclose()
            telemetry.shutdown()


@asynccontextmanager
async def _served(door: Door, residency: Residency, shadows: Shadows, other: Any) -> AsyncIterator[str]:
    async with asyncio.TaskGroup() as group:
        loops = [group.create_task(loop) for loop in (door.run(), residency.run(), shadows.run())]
        server, address = await _serve(door, other or _not_found, group)
        try:
            yield address
        finally:
            server.should_exit = server.force_exit = True
            for loop in loops:
                loop.cancel()


@asynccontextmanager
async def _engine(options: Options | None, url: str | None) -> AsyncIterator[str]:
    if url is not None:
        yield url
        return
    async with fake.running(options or Options(base_model=BASE_MODEL, tokens=6)) as running:
        yield running.url


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    """The other application's place."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _serve(door: Door, other: Any, group: asyncio.TaskGroup) -> tuple[uvicorn.Server, str]:
    config = uvicorn.Config(other, http=cast(Any, partial(Front, door=door)), lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    group.create_task(server.serve(sockets=[listening]))
    await until(lambda: server.started)
    return server, f"http://127.0.0.1:{listening.getsockname()[1]}"
