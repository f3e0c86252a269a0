"""The composition root of one worker: builds every room, connects them, and owns their background work.

Inference never comes by here: its requests go from the connection (serving/front.py) to the door. What is left is
FastAPI's. If a background task fails, the worker drains and leaves, and the supervisor starts a fresh one: no room
limps along without its loop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from adapters.ref import AdapterRef
from adapters.store import AdapterStore
from adapters.weights import BaseShape, Limits, base_revision
from gateway import api, console
from gateway.api.engine import view_of
from gateway.api.rooms import Rooms
from gateway.control.adapters import Adapters
from gateway.control.aliases import Aliases
from gateway.control.experiments import Experiments
from gateway.control.feed import Feed
from gateway.control.keys import Keys
from gateway.control.lineage import Lineages
from gateway.control.metrics import Metrics
from gateway.control.reports import Reporter
from gateway.control.swap import Swaps
from gateway.control.tenants import Tenants
from gateway.control.users import Users
from gateway.domain import Feedback, Tenant, WorkerReport
from gateway.engine.client import HttpEngine
from gateway.evaluation.judging import Judging
from gateway.evaluation.loops import loops_of
from gateway.feedback.intake import Intake
from gateway.feedback.recorder import Recorder
from gateway.feedback.tallies import Tallies
from gateway.loops import Loop, beside, each_second
from gateway.serving.admission import Admission, room
from gateway.serving.budgets import Budgets
from gateway.serving.door import Door
from gateway.serving.front import Front
from gateway.serving.ledger import Ledger
from gateway.serving.limits import Limiter
from gateway.serving.residency import Residency
from gateway.serving.shadow import Shadows
from gateway.serving.turns import Ticket
from gateway.serving.urgency import Priority
from gateway.settings import Settings
from gateway.snapshot import Current
from gateway.store import usage
from gateway.store.automatic import Price
from gateway.store.database import Database
from gateway.store.inferences import as_row, write_rows
from gateway.telemetry import Telemetry

log = logging.getLogger("gateway.app")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

SETTLE_SECONDS = 5.0


class StoreShelf:
    """Adapters as verified local directories, for the engine to read."""

    def __init__(self, store: AdapterStore) -> None:
        self.store = store

    async def path(self, ref: AdapterRef) -> Path:
        opened = await asyncio.to_thread(self.store.open, ref)
        return opened.path


class App:
    """An ASGI application. `drain()` makes readiness fail and the door refuse new requests; open streams go on."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.settings = settings
        self.ledger = ledger
        self.current = Current()
        self.telemetry = Telemetry(settings)
        self.draining = False
        self._news = asyncio.Event()
        self.door: Door | None = None
        self._shadows: Shadows | None = None
        self._api: Callable[[Scope, Receive, Send], Awaitable[None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        assert self._api is not None  # uvicorn serves only after the start-up completed
        await self._api(scope, receive, send)

    def front(self, *arguments: Any, **named: Any) -> Front:
        """A protocol for uvicorn: one client connection, in front of the door and of this app."""
        assert self.door is not None  # as above
        return Front(*arguments, door=self.door, **named)

    def drain(self) -> None:
        """Stop being ready. Called once, from the signal handler."""
        self.draining = True
        if self.door is not None:
            self.door.draining = True
        if self._shadows is not None:
            self.loop.call_soon_threadsafe(self._shadows.stop)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        self.loop = asyncio.get_running_loop()
        await receive()
        try:
            async with self._rooms():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except BaseException as error:
            log.critical("a background task failed: this worker leaves", exc_info=error)
            signal.raise_signal(signal.SIGTERM)
            raise
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _rooms(self) -> AsyncIterator[None]:
        """Build, connect and start all rooms; on the way out stop their loops and write what is still queued."""
        settings, current = self.settings, self.current
        async with AsyncExitStack() as stack:
            assert settings.database_url is not None  # the supervisor resolved it
            database = await Database.connect(settings.database_url)
            stack.push_async_callback(database.close)
            store = AdapterStore(settings.store_url)
            engine = _engine(settings)
            stack.push_async_callback(engine.aclose)
            residency = Residency(engine, StoreShelf(store), current, clock=self.loop.time)
            write = partial(write_rows, database)
            recorder = Recorder(write, as_row, capacity=settings.recorder_queue, telemetry=self.telemetry)
            limiter, admission = Limiter(self.ledger), Admission(clock=self.loop.time)
            budgets = Budgets(limiter, current, partial(usage.settle, database))
            self._shadows = shadows = self._mirrors(engine, residency, recorder, admission)
            self.door = Door(
                current,
                engine,
                residency,
                recorder,
                self.telemetry,
                shadows,
                limiter,
                admission,
                timeouts=settings.timeouts,
                max_body_bytes=settings.max_body_bytes,
            )
            self._api = _edges(rooms := self._rooms_of_the_api(database, store, engine, residency))
            loops = self._loops_of_the_snapshot(settings.database_url, database, residency, admission)
            loops += loops_of(database, rooms.judging, rooms.experiments, settings, self.telemetry)
            tallies = partial(Tallies(database).run, Price.per_million(**settings.price.model_dump()))
            loops += (tallies, residency.run, self.door.run, recorder.run, shadows.run, budgets.run, self.telemetry.run)
            await stack.enter_async_context(beside(*loops))
            await self._settle(residency)
            gc.collect()
            gc.freeze()  # what is here stays: a full collection over 200,000 objects would stop every stream for 50 ms
            yield
            await recorder.drain(settings.drain_seconds)
            await budgets.flush(settings.drain_seconds)
        await asyncio.to_thread(self.telemetry.shutdown)

    def _mirrors(self, engine: HttpEngine, residency: Residency, recorder: Recorder, admission: Admission) -> Shadows:
        """Who answers a second time: with what nobody else wants of the engine."""

        def spare(tenant: Tenant, adapter: str | None) -> Ticket | None:
            return admission.enter_now(tenant, adapter, Priority.SHADOW)

        shadows = Shadows(engine, residency, recorder, telemetry=self.telemetry, enter=spare)
        residency.places.on_yield = shadows.give_way
        return shadows

    def _loops_of_the_snapshot(
        self, url: str, database: Database, residency: Residency, admission: Admission
    ) -> tuple[Loop, ...]:
        """What keeps the picture current, and what tells the others how far this worker is with it."""
        reporter = Reporter(database, partial(_describe, str(uuid.uuid4()), self.current, residency))

        def changed() -> None:
            self._news.set()
            reporter.changed()
            resize()

        def resize() -> None:
            if residency.status is not None:
                using, elsewhere = frozenset(map(str, residency.leased)), reporter.leased_elsewhere()
                workers = self.settings.workers
                capacity, slots = room(residency.status, workers=workers, using=using, used_elsewhere=elsewhere)
                admission.resize(capacity=capacity, slots=slots)

        def pictured() -> None:
            residency.wake()
            changed()

        residency.leased_elsewhere = reporter.leased_elsewhere
        residency.on_change = changed
        feed = Feed(url, database, self.current, on_change=pictured, base_model=self.settings.base_model)
        return feed.run, reporter.run, partial(each_second, resize)

    def _rooms_of_the_api(
        self, database: Database, store: AdapterStore, engine: HttpEngine, residency: Residency
    ) -> Rooms:
        settings, current = self.settings, self.current
        assert settings.admin_key is not None  # the supervisor resolved it
        assert self.door is not None  # it is built before
        swaps, lineages = Swaps(database, store), Lineages(database, current)
        base = BaseShape.of(settings.model_path) if settings.model_path else None
        revision = base_revision(settings.model_path) if settings.model_path else None
        return Rooms(
            db=database,
            current=current,
            tenants=Tenants(database),
            keys=Keys(database),
            metrics=Metrics(database),
            adapters=Adapters(
                database,
                store,
                base_model=settings.base_model,
                base=base,
                base_revision=revision,
                limits=Limits(max_rank=settings.engine.max_lora_rank, max_bytes=settings.max_adapter_bytes),
            ),
            aliases=Aliases(database, swaps),
            experiments=Experiments(database, swaps),
            lineages=lineages,
            users=Users(database, lineages),
            intake=Intake(database, current, emit=self._tell_of_feedback),
            judging=Judging(database, Tallies(database), currency=settings.price.shown),
            door=self.door,
            engine_view=partial(view_of, settings, revision, database, residency),
            render=engine.render,
            admin_key=settings.admin_key.get_secret_value(),
            max_adapter_bytes=settings.max_adapter_bytes,
            upload_dir=settings.home / "uploads",
            readiness=partial(self._readiness, residency),
            metrics_text=self.telemetry.metrics_text,
        )

    async def _settle(self, residency: Residency) -> None:
        """Let the other workers take the requests on our common socket until this one knows keys and engine.

        Bounded: while there is nothing to know yet (an engine takes a minute to start), the probes must be answered.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while self._readiness(residency) is not None:
                    self._news.clear()
                    await self._news.wait()

    def _tell_of_feedback(self, feedback: Feedback, trace_id: str | None, span_id: str | None) -> None:
        value = None if isinstance(feedback.value, str) else feedback.value
        about = feedback.inference_id or feedback.episode_id or ""
        self.telemetry.judged(feedback.metric, value, inference=about, trace_id=trace_id, span_id=span_id)

    def _readiness(self, residency: Residency) -> str | None:
        """Why this worker should get no traffic now; None when it should."""
        if self.draining:
            return "draining"
        if self.current.snapshot.version == 0:
            return "starting: the database has not been read yet"
        return None if residency.ready else "starting: the engine is not ready yet"


def _engine(settings: Settings) -> HttpEngine:
    url, times = settings.engine.url, settings.timeouts
    assert url is not None  # the supervisor resolved it
    return HttpEngine(url, base_model=settings.base_model, timeouts=times, lane=settings.engine.lane)


def _edges(rooms: Rooms) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Everything that is not inference: the API, and the console beside it."""
    edges = api.build(rooms)
    console.mount(edges, rooms)
    return edges


def _describe(worker: str, current: Current, residency: Residency) -> WorkerReport:
    """What this worker says about itself."""
    return WorkerReport(
        worker=worker,
        snapshot_version=current.snapshot.version,
        ready=residency.ready,
        engine_boot=residency.boot,
        resident=frozenset(map(str, residency.resident)),
        leased=frozenset(map(str, residency.leased)),
        failed={str(ref): sentence for ref, sentence in residency.failed.items()},
    )
