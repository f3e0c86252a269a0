"""Who may be on the engine now, and who comes next: places, slots, classes and the bound of the queue in one decision.

- Places: at most `capacity` requests are on the engine. While nobody waits, whoever comes and fits goes at once.
- Classes: a higher one goes first, but a class that could have gone and was passed over `PATIENCE` times has the next
  turn: each gets at least a ninth of the turns, so none starves.
- Within a class, tenants take turns by weight (`fair.py`), each tenant's requests in the order of arrival.
- Slots: a request whose adapter does not fit into the batch waits for a slot and is passed meanwhile (`slots.py`).
- The queue holds as many as the engine: whoever is last then waits for about one generation of answers; a longer queue
  would outlast its clients' patience and hold their bodies in memory. When it is full, the newest request of the lowest
  class of the tenant with most waiting requests for its weight is refused, whoever came last.

Pure: the clock is handed in, and nothing here waits. Whoever waits is told by `admission.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gateway.domain import Tenant
from gateway.serving.fair import Flow, Lane, Waiter
from gateway.serving.slots import Slot, Slots
from gateway.serving.urgency import Priority

UNKNOWN_CAPACITY = 4096
"""For an engine that does not say how much it takes at once: it has a queue of its own. We open no more connections."""
LEAST_QUEUE = 64
PATIENCE = 8
TURN = 4.0
"""Mean answers for which a tenant keeps a slot that others are as entitled to. Each change of turns empties a slot
before it fills it again: with six busy adapters on two slots, turns of 0 keep half as many places busy as these."""
SHADOW_MARK = 0.75
"""The load, as a share of the capacity, above which shadow traffic stays out."""

_LEARNING = 1 / 32
_SHADOW = Priority.SHADOW


class Ticket:
    """One request's place on the engine, from `since` until it leaves. Leaving twice is once."""

    __slots__ = ("_gone", "charged", "flow", "since", "slot")
    charged: float  # with a flow only

    def __init__(self, gone: Callable[[Ticket], None], slot: Slot | None, since: float) -> None:
        self._gone: Callable[[Ticket], None] | None = gone
        self.slot, self.since = slot, since
        self.flow: Flow | None = None

    def leave(self) -> None:
        gone = self._gone
        if gone is not None:
            self._gone = None
            gone(self)

    def void(self) -> None:
        """Leaving does nothing from now on."""
        self._gone = None


class Turns:
    """The decision for one worker and one engine. `gone` is called with each ticket that leaves; whoever replaces it
    must call `leave`. `mean` is the seconds that a request holds its place, of late."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.capacity = UNKNOWN_CAPACITY
        self.running = self.waiting = 0
        self.mean = 1.0
        self.slots = Slots()
        self.gone: Callable[[Ticket], None] = self.leave
        self._clock = clock
        self._lanes = {priority: Lane() for priority in (Priority.HIGH, Priority.NORMAL, Priority.LOW)}
        self._backlog: dict[str, int] = {}  # waiting requests by tenant
        self._number = 0

    @property
    def bound(self) -> int:
        """How many may wait."""
        return max(LEAST_QUEUE, self.capacity)

    def enter_now(self, tenant: Tenant, adapter: str | None, priority: Priority) -> Ticket | None:
        """A place if nobody waits and it fits, else None."""
        if self.waiting or self.running >= self.capacity or (priority is _SHADOW and not self._is_idle(adapter)):
            return None
        slot, now = None, self._clock()
        if adapter is not None and self.slots.limit:
            slot = self.slots.enter(adapter, tenant, now)
            if slot is None:
                return None
        self.running += 1
        return Ticket(self.gone, slot, now)

    def leave(self, ticket: Ticket) -> None:
        """A request is not on the engine any more."""
        now = self._clock()
        held = now - ticket.since
        self.running -= 1
        self.mean += _LEARNING * (held - self.mean)
        if ticket.slot is not None:
            self.slots.leave(ticket.slot, now)
        if ticket.flow is not None:
            ticket.flow.settle(ticket.charged, held)

    def take_back(self, ticket: Ticket) -> None:
        """A request that never came to use its place: it is as if it had not had its turn."""
        ticket.void()
        self.running -= 1
        if ticket.slot is not None:
            self.slots.leave(ticket.slot, self._clock())
        if ticket.flow is not None:
            ticket.flow.refund(ticket.charged)

    def add(self, waiter: Waiter) -> None:
        """Queue a request; `next` says when it goes."""
        self._number += 1
        waiter.number, waiter.since, waiter.waits = self._number, self._clock(), True
        self._lanes[waiter.priority].add(waiter)
        self.slots.await_slot(waiter)
        self._count(waiter, 1)

    def withdraw(self, waiter: Waiter) -> None:
        """A waiting request goes away: its client has left, its deadline has passed, or the queue is full."""
        self._lanes[waiter.priority].remove(waiter)
        self.slots.forgo_slot(waiter)
        self._count(waiter, -1)

    def next(self) -> tuple[Waiter, Ticket] | None:
        """Give the next place to whoever's turn it is; None when nobody who waits fits. Call it until then."""
        if not self.waiting:
            return None
        found = self._choose()
        if found is None:
            self.slots.balance(self._clock(), TURN * self.mean)
            found = self._choose() if self.slots.changed else None  # a bar may have been lifted
        if found is None:
            return None
        now, adapter = self._clock(), found.adapter
        slot = self.slots.enter(adapter, found.tenant, now) if adapter is not None and self.slots.limit else None
        ticket = Ticket(self.gone, slot, now)
        ticket.flow, ticket.charged = self._lanes[found.priority].take(found, self.mean)
        self.slots.forgo_slot(found)
        self._count(found, -1)
        self.running += 1
        return found, ticket

    def surplus(self, newcomer: Waiter) -> Waiter | None:
        """Who has to go because too many wait now that `newcomer` has come; withdraw it."""
        if self.waiting <= self.bound:
            return None
        weights = {name: flow.weight for lane in self._lanes.values() for name, flow in lane.tenants()}
        come = newcomer.tenant.name
        greediest = max(self._backlog, key=lambda name: (self._backlog[name] / weights[name], name == come))
        flows = (lane.flows.get(greediest) for lane in reversed(self._lanes.values()))
        return next(flow for flow in flows if flow is not None and flow.waiting).newest()

    def is_alone(self, tenant: Tenant) -> bool:
        """Whether no other tenant has fewer requests waiting for its weight: the queue is full for everybody."""
        mine = self._backlog.get(tenant.name, 0) / tenant.weight
        flows = (pair for lane in self._lanes.values() for pair in lane.tenants())
        return all(name == tenant.name or self._backlog[name] / flow.weight >= mine for name, flow in flows)

    def drain_seconds(self) -> float:
        """About how long those who wait now need until they have all gone."""
        return self.waiting * self.mean / self.capacity

    def resize(self, *, capacity: int, slots: int) -> None:
        """Another engine, or other limits. Who runs goes on; `next` may have turns to give."""
        self.capacity = max(1, capacity)
        if slots != self.slots.limit:
            self.slots.resize(slots)

    def _choose(self) -> Waiter | None:
        """Whose turn it is, among those who fit."""
        if self.running >= self.capacity:
            return None
        if self.slots.changed:
            self.slots.changed = False
            for lane in self._lanes.values():
                lane.recall()
        chosen: Waiter | None = None
        passed: list[Lane] = []
        for lane in self._lanes.values():  # from the highest to the lowest
            waiter = lane.first(self.slots.fits) if lane.waiting else None
            if waiter is None:
                continue
            if chosen is None or lane.passed >= PATIENCE:
                chosen = waiter
            else:
                passed.append(lane)
        for lane in passed:
            lane.passed += 1
        return chosen

    def _count(self, waiter: Waiter, step: int) -> None:
        name, self.waiting = waiter.tenant.name, self.waiting + step
        waiter.waits = step > 0
        left = self._backlog[name] = self._backlog.get(name, 0) + step
        if not left:
            del self._backlog[name]
        if not self.waiting:
            for lane in self._lanes.values():
                lane.clear()

    def _is_idle(self, adapter: str | None) -> bool:
        """Whether a shadow would be in nobody's way: below the mark, and without the last free slot."""
        slots = self.slots
        fits = adapter is None or not slots.limit or adapter in slots.active or slots.free > 1
        return fits and self.running < math.floor(SHADOW_MARK * self.capacity)
