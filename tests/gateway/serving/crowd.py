"""A crowd at the engine in simulated time: tenants send at random, `Turns` decides, answers take their time.

    senders = [Sender(Tenant("acme"), rate=3.0, adapters=("acme/a@1",))]
    outcome = play(senders, capacity=32, slots=4, seconds=600)
    outcome.p99(senders)

Seeded, no sockets, no event loop: an hour of traffic takes a second or two. An admitted request runs at once, as it
would on an engine whose limits `Turns` was told; its answer takes an exponential time around the sender's `mean`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.domain import Tenant
from gateway.serving.fair import Waiter
from gateway.serving.turns import Ticket, Turns
from gateway.serving.urgency import Priority


@dataclass(frozen=True, slots=True)
class Sender:
    """`rate`: requests in a second, at random; `mean`: seconds of an answer. An empty `adapters` is the base model."""

    tenant: Tenant
    rate: float
    adapters: Sequence[str | None] = (None,)
    mean: float = 1.0
    priority: Priority = Priority.NORMAL


@dataclass(slots=True)
class Outcome:
    """Seconds from arrival to the end of the answer, and to its beginning; place-seconds; refusals. By tenant."""

    latencies: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    service: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    refused: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    busy: float = 0.0

    def p99(self, senders: Sequence[Sender]) -> float:
        """Of all their requests that were answered."""
        values = sorted(one for sender in senders for one in self.latencies[sender.tenant.name])
        return values[int(0.99 * (len(values) - 1))]


class Stage:
    """One run. Events are (time, number, what): an arrival's sender, or the ticket that leaves."""

    def __init__(self, senders: Sequence[Sender], *, capacity: int, slots: int, seed: int) -> None:
        self.now, self.outcome = 0.0, Outcome()
        self.turns = Turns(lambda: self.now)
        self.turns.resize(capacity=capacity, slots=slots)
        self._random = {id(sender): random.Random(f"{seed} {sender.tenant.name}") for sender in senders}
        self._events: list[tuple[float, int, Sender | Ticket]] = []
        self._numbers = itertools.count()
        self._asked: dict[Waiter, tuple[float, float]] = {}  # → (when it came, how long its answer takes)
        for sender in senders:
            self._expect(sender)

    def play(self, seconds: float) -> Outcome:
        while self._events[0][0] < seconds:
            then, _, event = heapq.heappop(self._events)
            self.outcome.busy += (then - self.now) * self.turns.running
            self.now = then
            if isinstance(event, Ticket):
                event.leave()
            else:
                self._arrive(event)
                self._expect(event)
            self._give()
        return self.outcome

    def _give(self) -> None:
        while (turn := self.turns.next()) is not None:
            waiter, ticket = turn
            self._begin(waiter.tenant.name, ticket, *self._asked.pop(waiter))

    def _expect(self, sender: Sender) -> None:
        self._at(self.now + self._random[id(sender)].expovariate(sender.rate), sender)

    def _arrive(self, sender: Sender) -> None:
        dice, tenant = self._random[id(sender)], sender.tenant
        adapter, takes = dice.choice(sender.adapters), dice.expovariate(1 / sender.mean)
        ticket = self.turns.enter_now(tenant, adapter, sender.priority)
        if ticket is not None:
            self._begin(tenant.name, ticket, self.now, takes)
            return
        waiter = Waiter(tenant, adapter, sender.priority)
        self._asked[waiter] = (self.now, takes)
        self.turns.add(waiter)
        self._give()
        surplus = self.turns.surplus(waiter) if waiter.waits else None
        if surplus is not None:
            self.turns.withdraw(surplus)
            del self._asked[surplus]
            self.outcome.refused[surplus.tenant.name] += 1

    def _begin(self, tenant: str, ticket: Ticket, came: float, takes: float) -> None:
        self.outcome.waits[tenant].append(self.now - came)
        self.outcome.latencies[tenant].append(self.now - came + takes)
        self.outcome.service[tenant] += takes
        self._at(self.now + takes, ticket)

    def _at(self, when: float, event: Sender | Ticket) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))


def play(senders: Sequence[Sender], *, capacity: int, slots: int = 0, seconds: float, seed: int = 1) -> Outcome:
    """Let them send for that long."""
    return Stage(senders, capacity=capacity, slots=slots, seed=seed).play(seconds)
