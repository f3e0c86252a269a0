"""Whatever happens in whatever order: no version in use is evicted, none is leased that is not there or is bad.

The engine is a small one in memory that keeps its own books; time is handed in, so that hours pass in milliseconds.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adapters.ref import AdapterRef
from gateway.engine.base import Answer, EngineStatus, Headers, Probe
from gateway.errors import Unavailable
from gateway.serving.leases import Lease
from gateway.serving.residency import Residency
from gateway.snapshot import Current, Snapshot
from tests.gateway.serving.house import adapter, alias, picture, ref

pytestmark = pytest.mark.long

CAPACITY = 4
REFS = [ref(f"acme/support@{version}") for version in range(1, 8)]
BAD = REFS[-1]
refs = st.sampled_from(REFS)


class BookEngine:
    """An engine in memory that complains when it is treated wrongly."""

    def __init__(self) -> None:
        self.boot = 1
        self.away = False
        self.held: set[str] = set()
        self.in_use: Counter[str] = Counter()
        self.complaints: list[str] = []

    async def status(self) -> EngineStatus:
        await self._here()
        return EngineStatus(str(self.boot), "base", True, 64, 4, CAPACITY, 4096, frozenset(self.held))

    async def load(self, name: str, path: Path) -> Probe:
        await self._here()
        new = name not in self.held
        if new and len(self.held) >= CAPACITY:
            self.complaints.append(f"{name} was loaded into a full engine")
        self.held.add(name)
        return Probe("x", {name: math.nan if name == str(BAD) else -1.0})

    async def evict(self, name: str) -> bool:
        await self._here()
        if self.in_use[name]:
            self.complaints.append(f"{name} was evicted while in use")
        self.held.discard(name)
        return True

    async def probe(self, model: str, *, seconds: float = 30) -> Probe:
        await self._here()
        if model != "base" and model not in self.held:
            raise Unavailable("not here")
        return Probe("x", {model: -1.0})

    async def send(self, path: bytes, headers: Headers, body: bytes, *, method: bytes = b"POST") -> Answer:
        raise NotImplementedError  # nothing is generated here

    async def aclose(self) -> None:
        return None

    def restart(self) -> None:
        self.boot += 1
        self.held.clear()
        self.in_use.clear()

    async def _here(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("away")


class AnyShelf:
    async def path(self, ref: AdapterRef) -> Path:
        await asyncio.sleep(0)
        return Path("/") / str(ref)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now, self.version = 1000.0, 1
        self.engine, self.current = BookEngine(), Current(self.snapshot(()), stale=False)
        self.residency = Residency(self.engine, AnyShelf(), self.current, clock=lambda: self.now)
        self.running = self.loop.create_task(self.residency.run())
        self.leases: list[tuple[Lease, int]] = []
        self.settle()

    def snapshot(self, serving: tuple[AdapterRef, ...], preparing: frozenset[AdapterRef] = frozenset()) -> Snapshot:
        aliases = [alias("acme", f"a{n}", ("v", 1, str(one))) for n, one in enumerate(serving)]
        return picture(
            version=self.version, aliases=aliases, adapters=[adapter(str(r)) for r in REFS], preparing=preparing
        )

    def settle(self) -> None:
        self.residency.wake()
        for _ in range(200):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule(one=refs)
    def lease(self, one: AdapterRef) -> None:
        async def ask() -> Lease | None:
            try:
                async with asyncio.timeout(5):
                    return await self.residency.lease(one)
            except Unavailable:
                return None

        lease = self.loop.run_until_complete(ask())
        if lease is not None:
            assert one != BAD and self.residency.ready
            # Between a restart and the next look a lease may be of the past: the engine then answers 404.
            if self.residency.boot == str(self.engine.boot):
                assert str(one) in self.engine.held
                self.engine.in_use[str(one)] += 1
            self.leases.append((lease, self.engine.boot))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease, boot = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        lease.release()
        if boot == self.engine.boot and lease.ref is not None and self.engine.in_use[str(lease.ref)]:
            self.engine.in_use[str(lease.ref)] -= 1

    @rule(serving=st.lists(refs, max_size=3, unique=True), preparing=st.frozensets(refs, max_size=1))
    def change_the_snapshot(self, serving: list[AdapterRef], preparing: frozenset[AdapterRef]) -> None:
        self.version += 1
        self.current.snapshot = self.snapshot(tuple(serving), preparing)
        self.settle()

    @rule(seconds=st.sampled_from([0.5, 5.0, 11.0, 120.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    @rule()
    def restart_the_engine(self) -> None:
        self.engine.restart()
        self.settle()

    @rule(away=st.booleans())
    def take_the_engine_away(self, away: bool) -> None:
        self.engine.away = away
        self.settle()
        if away:
            assert not self.residency.ready

    @rule(one=refs)
    def hear_a_404(self, one: AdapterRef) -> None:
        if str(one) not in self.engine.held:
            self.residency.forget(one)

    @invariant()
    def the_engine_has_no_complaint(self) -> None:
        assert self.engine.complaints == []

    @invariant()
    def who_is_resident_is_there_and_well(self) -> None:
        if not self.engine.away:
            assert {str(one) for one in self.residency.resident} <= self.engine.held
        assert BAD not in self.residency.resident

    @invariant()
    def ready_means_that_all_that_serves_is_there_or_known_to_be_bad(self) -> None:
        if self.residency.ready and self.residency.boot == str(self.engine.boot):
            held = len(self.residency.resident)
            for one in self.current.snapshot.serving() - self.residency.resident:
                assert one in self.residency.failed or held >= CAPACITY - 1 or one == BAD

    def teardown(self) -> None:
        self.running.cancel()
        self.loop.run_until_complete(asyncio.gather(self.running, return_exceptions=True))
        self.loop.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
