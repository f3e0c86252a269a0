"""Which versions are on the engine, and how they come and go. It knows nothing of requests or of an alias's split.

Desired state is the snapshot (`wanted`); what the engine holds is asked of it each second; the loop here brings the two
together. It loads what is wanted, after a restart of the engine everything that serves traffic, and evicts what nobody
wants and nobody uses. A lease keeps a version where it is for as long as an answer is made of it.

On the happy path a lease is a dictionary look-up and a count: no lock, no task, no await.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from adapters.ref import AdapterRef
from gateway.engine.base import Engine, EngineStatus, Probe
from gateway.errors import AdapterRefused, Conflict, EngineFailed, GatewayError, Unavailable, UpstreamBroken
from gateway.serving.canary import judge
from gateway.serving.failures import Failures
from gateway.serving.leases import Lease, Seat
from gateway.serving.loading import Flights, Outcome, Shelf, take_down
from gateway.serving.occupancy import Occupancy, Wishes
from gateway.serving.places import Places
from gateway.snapshot import Current, Snapshot

log = logging.getLogger("gateway.residency")

POLL_SECONDS = 1.0
GRACE_SECONDS = 10.0
"""How long a version nobody wants stays: longer than the second in which a neighbour's lease becomes known here."""
SILENCE_SECONDS = 15.0
"""An engine that gave no token for so long has to give one on demand: /health says 200 of a hung one."""
PATIENCE_SECONDS = 10.0
MOST_MISSES = 2
"""An engine that cannot be reached is away at once; one that is slow to say how it is gets a second chance."""


class Residency:
    """One worker's view of one engine.

    `run()` is its loop. Before its first round, and while the engine is away or being restored, `ready` is false and
    every lease is refused with `Unavailable`. `leased_elsewhere` and `on_change` are set by whoever knows the other
    workers; `heard()` is called by whoever sees the engine's answers.
    """

    def __init__(
        self,
        engine: Engine,
        shelf: Shelf,
        current: Current,
        *,
        clock: Callable[[], float] = time.monotonic,
        grace: float = GRACE_SECONDS,
        silence: float = SILENCE_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._engine, self._shelf, self._current = engine, shelf, current
        self._clock, self._silence, self._patience = clock, silence, patience
        self.ready = False
        self.boot: str | None = None
        self._base_seat = Seat(None, "")
        self._heard_at = -math.inf
        self.leased_elsewhere: Callable[[], frozenset[str]] = frozenset
        self.on_change: Callable[[], None] = lambda: None
        self._wishes = Wishes(current)
        self._wanted = self._wishes.wanted
        self._seats = Occupancy(self._is_wanted, clock, grace=grace)
        self.places = Places(self._seats, self._wishes, self._evict)
        self._failures = Failures(clock)
        self._flights = Flights(self._load)
        self.status: EngineStatus | None = None
        self._base: Probe | None = None
        self._misses = 0
        self._preparing: frozenset[AdapterRef] = frozenset()
        self._turn = asyncio.Lock()  # one change of the engine at a time: each stalls everybody's tokens
        self._woken = asyncio.Event()
        self.loads = 0

    @property
    def resident(self) -> frozenset[AdapterRef]:
        """The versions a lease gets at once."""
        return self._seats.resident()

    @property
    def leased(self) -> frozenset[AdapterRef]:
        """The versions some answer is being made of."""
        return self._seats.leased()

    @property
    def failed(self) -> dict[AdapterRef, str]:
        """The versions that could not be made resident, and why."""
        return self._failures.sentences()

    def lease_now(self, ref: AdapterRef | None) -> Lease | None:
        """A lease if that takes no waiting, else None. Raises `Unavailable` while the engine is not ready."""
        if not self.ready:
            raise Unavailable("The model server is starting.", remedy="Try again in a few seconds.")
        if ref is None:
            return Lease(self._base_seat)
        seat = self._seats.seats.get(ref)
        if seat is None or not seat.resident:
            return None
        lease = Lease(seat)
        if seat.leases == 1 and ref not in self._wanted():
            self.on_change()  # the other workers would evict it: they should know soon
        return lease

    async def lease(self, ref: AdapterRef | None) -> Lease:
        """A lease, after loading the version if need be. Raises `Unavailable` when it cannot be loaded now."""
        while (lease := self.lease_now(ref)) is None:
            assert ref is not None  # the base model needs no waiting
            error = self._failures.due(ref) or await self._flights.join(ref) or self._failures.due(ref)
            if error is not None:
                raise error
        return lease

    def forget(self, ref: AdapterRef) -> None:
        """The engine says that it does not have this version, whatever we believed."""
        self._seats.remove(ref)
        self.wake()
        self.on_change()

    def heard(self) -> None:
        """The engine gave a token just now."""
        self._heard_at = self._clock()

    def wake(self) -> None:
        """Look at the engine and the snapshot now rather than at the next second."""
        self._woken.set()

    async def run(self) -> None:
        """Reconcile each second, and at once when woken, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._flights.group = group
                while True:
                    self._woken.clear()
                    await self._round()
                    # Not wait_for: up to Python 3.11 it loses a cancellation that comes together with the event.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_SECONDS):
                            await self._woken.wait()
        finally:
            self._flights.group = None
            self._set_ready(False)

    async def _round(self) -> None:
        try:
            await self.reconcile()
        except Unavailable as error:
            self._misses = MOST_MISSES
            self._away(error)
        except GatewayError as error:
            self._misses += 1
            self._away(error)

    def _away(self, error: GatewayError) -> None:
        if self._misses >= MOST_MISSES:
            if self.ready:
                log.warning("the engine is away", extra={"reason": error.message})
            self._set_ready(False)

    async def reconcile(self) -> None:
        """One round: see what the engine holds, begin to load what is wanted, evict what is not."""
        await self._look()
        snapshot = self._current.snapshot
        if snapshot.version == 0:
            return  # nothing read yet: we do not know what is wanted
        self._load_wanted(snapshot)
        await self._evict_unwanted()
        await self._listen()
        self._misses = 0
        if all(self._seats.is_resident(ref) or ref in self._failures for ref in snapshot.serving()):
            self._set_ready(True)

    async def _look(self) -> None:
        async with self._turn:
            status = await self._engine.status()
            if status.boot_id != self.boot:
                self._begin_again(status)
            self.status, self._base_seat.name = status, status.base_model
            if self._seats.see(status.resident):  # another worker evicted what we took for resident
                self.on_change()
            if self._base is None:
                self._base = await self._engine.probe(status.base_model)
                self.heard()

    def _begin_again(self, status: EngineStatus) -> None:
        """A new engine process: whatever we knew of the old one is void."""
        log.info("a new engine", extra={"boot": status.boot_id, "model": status.base_model})
        self.boot, self._base = status.boot_id, None
        self._seats.clear()
        self._failures.clear()
        self._set_ready(False)

    def _load_wanted(self, snapshot: Snapshot) -> None:
        self._failures.forgive(*(snapshot.preparing - self._preparing))  # who prepares it again may have mended it
        self._preparing = snapshot.preparing
        self._failures.prune(self._wanted())
        serving = snapshot.serving()
        for ref in sorted(self._wanted(), key=lambda ref: (ref not in serving, ref)):
            if not self._seats.is_resident(ref) and self._failures.due(ref) is None:
                self._flights.begin(ref)

    async def _listen(self) -> None:
        """Make an engine that has been silent give a token."""
        if self._clock() - self._heard_at >= self._silence:
            await self._engine.probe(self._base_seat.name, seconds=self._patience)
            self.heard()

    def _set_ready(self, ready: bool) -> None:
        if ready != self.ready:
            self.ready = ready
            log.info("ready" if ready else "not ready", extra={"resident": len(self.resident)})
            self.on_change()

    async def _load(self, ref: AdapterRef) -> Outcome:
        try:
            path = await take_down(self._shelf, ref)
            async with self._turn:
                await self._put(ref, path)
        except (AdapterRefused, EngineFailed) as error:
            if isinstance(error, UpstreamBroken):
                return error
            log.warning("version refused", extra={"ref": str(ref), "reason": error.message})
            outcome: Outcome = self._failures.remember(ref, error.message)
        except GatewayError as error:
            return error  # the engine's trouble, not the version's: the next round tries again
        else:
            self._failures.forgive(ref)
            outcome = None
        self.wake()
        self.on_change()
        return outcome

    async def _put(self, ref: AdapterRef, path: Path) -> None:
        status = self.status
        if status is None or self._base is None:
            raise Unavailable("The model server is starting.")
        if not status.plugin:
            raise AdapterRefused("This engine serves the base model only.", remedy="Run it with tuneloop's plugin.")
        await self.places.make(ref, status.capacity)
        probe = await self._engine.load(str(ref), path)
        self.loads += 1
        self._seats.on_engine.add(ref)  # it takes a place, well-behaved or not
        sentence = judge(probe, self._base)
        if sentence is not None:
            await self._evict(ref)
            raise AdapterRefused(sentence)
        self._seats.settle(ref)

    async def _evict_unwanted(self) -> None:
        for ref in self._seats.overdue():
            async with self._turn:
                if not self._seats.in_use(ref):  # nobody took it while we waited for our turn
                    await self._evict(ref)

    def _is_wanted(self, ref: AdapterRef) -> bool:
        return ref in self._wanted() or str(ref) in self.leased_elsewhere()

    async def _evict(self, ref: AdapterRef) -> bool:
        # Out of the books first: who asks for it from now on loads it again, after this turn.
        self._seats.remove(ref)
        self.on_change()
        try:
            await self._engine.evict(str(ref))
        except Conflict:  # a neighbour streams from it, and we had not heard of that yet
            return False
        log.info("version evicted", extra={"ref": str(ref)})
        return True
