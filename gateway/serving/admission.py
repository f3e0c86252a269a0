"""The queue in front of the engine: a request asks for a place, and goes on at once or waits for its turn.

`turns.py` decides; here is what waits for it, what ends the waiting, and what is said to whoever is refused. On the
happy path a place is a comparison and two counts: no lock, no task, no await. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from gateway.domain import Tenant
from gateway.engine.base import EngineStatus
from gateway.errors import EngineTimeout, GatewayError, RateLimited, Unavailable
from gateway.serving.fair import Waiter
from gateway.serving.turns import UNKNOWN_CAPACITY, Ticket, Turns
from gateway.serving.urgency import Priority

LONGEST_RETRY = 60
"""Clients that are told to come back later than this (seconds) do as they please."""


class Admission:
    """One worker's. `running` and `waiting` are for gauges; `resize` is to be called once the engine is known."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._turns = Turns(clock)
        self._turns.gone = self._leave
        self.enter_now: Callable[[Tenant, str | None, Priority], Ticket | None] = self._turns.enter_now
        """A place if nobody who waits would come first, one is free, and so is a slot for the adapter (None: the base
        model, which takes none); else None. SHADOW enters this way only, and only while the engine is far from full."""

    @property
    def running(self) -> int:
        """Requests on the engine."""
        return self._turns.running

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._turns.waiting

    def resize(self, *, capacity: int, slots: int) -> None:
        """`capacity`: requests this worker may have on the engine at once; `slots`: distinct adapters among them,
        0 for any number. See `room`."""
        self._turns.resize(capacity=capacity, slots=slots)
        self._give()

    async def enter(self, tenant: Tenant, adapter: str | None, priority: Priority, *, seconds: float) -> Ticket:
        """A place, after waiting for it for up to `seconds`.

        Raises `Unavailable` when the queue is full, `RateLimited` when it is full and this tenant has more than its
        share of it, `EngineTimeout` when the seconds are over. Whoever is cancelled leaves nothing behind.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(tenant, adapter, priority, loop.create_future())
        self._turns.add(waiting)
        self._give()
        self._shed(waiting)
        if waiting.place.done():
            return waiting.place.result()
        timer = loop.call_later(seconds, self._refuse, waiting, _too_late(seconds))
        try:
            return await waiting.place
        except asyncio.CancelledError:
            self._withdraw(waiting)
            raise
        finally:
            timer.cancel()

    def _leave(self, ticket: Ticket) -> None:
        self._turns.leave(ticket)
        if self._turns.waiting:
            self._give()

    def _give(self) -> None:
        """Tell everybody whose turn has come."""
        while (turn := self._turns.next()) is not None:
            waiting, ticket = turn
            assert isinstance(waiting, _Waiting)  # nothing else is added
            if waiting.place.done():  # cancelled, and its task has not run since
                self._turns.take_back(ticket)
            else:
                waiting.ticket = ticket
                waiting.place.set_result(ticket)

    def _shed(self, newcomer: Waiter) -> None:
        """Refuse whoever is one too many."""
        surplus = self._turns.surplus(newcomer) if newcomer.waits else None
        if surplus is not None:
            assert isinstance(surplus, _Waiting)  # nothing else is added
            self._refuse(surplus, self._full(surplus.tenant))

    def _full(self, tenant: Tenant) -> GatewayError:
        """Told before the surplus has gone, so that it counts."""
        seconds = min(LONGEST_RETRY, max(1, math.ceil(self._turns.drain_seconds())))
        if self._turns.is_alone(tenant):
            return Unavailable("The queue for the model server is full.", retry_after=seconds)
        return RateLimited(
            "Your share of the queue for the model server is full.",
            remedy="Send fewer requests at once.",
            retry_after=seconds,
        )

    def _refuse(self, waiting: _Waiting, error: GatewayError) -> None:
        if waiting.waits:
            self._turns.withdraw(waiting)
            self._give()  # what it kept others from may be possible now
        if not waiting.place.done():
            waiting.place.set_exception(error)

    def _withdraw(self, waiting: _Waiting) -> None:
        if waiting.waits:
            self._turns.withdraw(waiting)
        elif waiting.ticket is not None:  # its turn came together with the cancellation
            self._turns.take_back(waiting.ticket)
        elif not waiting.place.cancelled():
            waiting.place.exception()  # so did its refusal: somebody has to have looked at it
        self._give()


class _Waiting(Waiter):
    """A request that waits for its place."""

    __slots__ = ("place", "ticket")

    def __init__(self, tenant: Tenant, adapter: str | None, priority: Priority, place: asyncio.Future[Ticket]) -> None:
        super().__init__(tenant, adapter, priority)
        self.place = place
        self.ticket: Ticket | None = None


def room(
    status: EngineStatus,
    *,
    workers: int,
    using: frozenset[str] = frozenset(),
    used_elsewhere: frozenset[str] = frozenset(),
) -> tuple[int, int]:
    """(capacity, slots) of one of `workers` that share an engine.

    Places are divided, with a sixteenth on top: what lies ready in the engine's own queue takes a place that becomes
    free in the engine's next step, while one from here would take a way through two processes first.

    Slots are not: workers serve the same tenants, and a slot serves all of them. A worker has those that the others'
    adapters leave free (`used_elsewhere`, beside what it uses itself), and at least its part.
    """
    if status.concurrency:
        whole = status.concurrency + math.ceil(status.concurrency / 16)
        capacity = min(UNKNOWN_CAPACITY, math.ceil(whole / workers))
    else:
        capacity = UNKNOWN_CAPACITY
    if not status.slots:
        return capacity, 0
    return capacity, max(status.slots // workers, status.slots - len(used_elsewhere - using), 1)


def _too_late(seconds: float) -> EngineTimeout:
    return EngineTimeout(
        f"Your request waited {seconds:.3g} s for its turn, and its deadline has passed.",
        remedy="Try again later, or allow more time.",
        code="deadline_exceeded",
    )
