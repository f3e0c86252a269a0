"""The control plane's rooms on a test's database, a store of real small adapters, and workers to swap with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from adapters.ref import AdapterRef
from adapters.store import AdapterStore
from gateway.control.adapters import Adapters
from gateway.control.aliases import Aliases
from gateway.control.experiments import Experiments
from gateway.control.feed import Feed
from gateway.control.keys import Keys
from gateway.control.metrics import Metrics
from gateway.control.reports import Reporter
from gateway.control.swap import Swaps
from gateway.control.tenants import Tenants
from gateway.domain import Variant, WorkerReport
from gateway.snapshot import Current
from gateway.store.database import Database
from tests.adapters import sample

ME = "tester"


@dataclass
class Rooms:
    db: Database
    store: AdapterStore
    directory: Path
    prepare_seconds: float = 5
    acknowledge_seconds: float = 5

    def __post_init__(self) -> None:
        swaps = Swaps(
            self.db, self.store, prepare_seconds=self.prepare_seconds, acknowledge_seconds=self.acknowledge_seconds
        )
        self.swaps = swaps
        self.tenants = Tenants(self.db)
        self.keys = Keys(self.db)
        self.metrics = Metrics(self.db)
        self.adapters = Adapters(self.db, self.store, base_model=sample.BASE_MODEL)
        self.aliases = Aliases(self.db, swaps)
        self.experiments = Experiments(self.db, swaps)

    def publish(self, tenant: str = "acme", name: str = "support", *, seed: int = 0) -> AdapterRef:
        """A version in the store that nobody has registered yet."""
        made = sample.write_adapter(self.directory / f"{tenant}-{name}-{seed}", seed=seed)
        manifest = sample.manifest(run_id=f"run-{seed}")
        return self.store.publish(made, tenant=tenant, name=name, manifest=manifest).ref

    async def ready(self, *seeds: int, tenant: str = "acme") -> list[AdapterRef]:
        """A new tenant with a registered version for each seed."""
        await self.tenants.create(tenant, actor=ME)
        refs = [self.publish(tenant, seed=seed) for seed in seeds]
        for ref in refs:
            await self.adapters.register(ref, actor=ME)
        return refs


def only(ref: AdapterRef | None, name: str = "tuned") -> list[Variant]:
    return [Variant(name, 1, ref)]


@dataclass
class Worker:
    """A worker without an engine: it follows the snapshot with the real feed, claims to hold what is wanted after
    `load_seconds`, and reports through the real reporter.

    `refuse` is the sentence it gives for every version. `premature` collects what a picture sent traffic to before the
    worker held it: it must stay empty.
    """

    name: str
    db: Database
    load_seconds: float = 0
    refuse: str | None = None
    current: Current = field(default_factory=Current)
    resident: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    premature: list[str] = field(default_factory=list)

    def report(self) -> WorkerReport:
        version = self.current.snapshot.version
        return WorkerReport(self.name, version, True, "boot", frozenset(self.resident), frozenset(), dict(self.failed))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Worker]:
        """Work while the block runs, from the moment the worker has read and reported its first picture."""
        self.changed = asyncio.Event()
        self.following = asyncio.Event()
        self.reporter = Reporter(self.db, self.report)
        feed = Feed(self.db.url, self.db, self.current, on_change=self.changed.set)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in (feed.run(), self._reconcile(), self._report())]
            await self.following.wait()
            yield self
            for task in tasks:
                task.cancel()

    async def _reconcile(self) -> None:
        while True:
            await self.changed.wait()
            self.changed.clear()
            if self.following.is_set():
                self.premature += {str(ref) for ref in self.current.snapshot.serving()} - self.resident
            wanted = {str(ref) for ref in self.current.snapshot.wanted()}
            if wanted - self.resident:
                await asyncio.sleep(self.load_seconds)
            if self.refuse is None:
                self.resident = wanted
            else:
                self.failed = dict.fromkeys(wanted, self.refuse)
            self.reporter.changed()
            self.following.set()

    async def _report(self) -> None:
        await self.reporter.run()
