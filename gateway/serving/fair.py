"""Whose turn it is among the waiting requests of one class: start-time fair queueing between tenants.

What tenants share is the engine's places, and what a request uses of them is the seconds it holds one. Each tenant has
a tag, the service it has had per unit of its weight since it joined; the smallest goes next. A request is charged what
its tenant's requests take on average when it goes, and the difference with the next one, when it is known: so a tenant
with long answers gets fewer of them, and counting requests would give it nearly everything.

Whoever joins starts at the tag of who went last: nobody saves up turns by staying away. It knows no clock and no
engine; who fits on the engine now is handed in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heappop, heappush, heapreplace

from gateway.domain import Tenant
from gateway.serving.urgency import Priority

_LEARNING = 0.2
"""How fast a tenant's average follows: the last ten or so requests count."""
_MOST_IDLE = 256
"""Tenants without a waiting request of which a lane remembers how much they had; more are forgotten in one go."""


class Waiter:
    """One waiting request. `number` is the order of arrival, `since` the clock's seconds."""

    __slots__ = ("adapter", "number", "priority", "since", "tenant", "waits")

    def __init__(self, tenant: Tenant, adapter: str | None, priority: Priority) -> None:
        self.tenant, self.adapter, self.priority = tenant, adapter, priority
        self.number, self.since, self.waits = 0, 0.0, False


Fits = Callable[[Waiter], bool]


class Flow:
    """One tenant's waiting requests of one class, in order of arrival for each adapter.

    `owed`: seconds that its requests took beyond what was charged for them, to be charged with the next.
    """

    __slots__ = ("_average", "_owed", "queues", "standing", "tag", "waiting", "weight")

    def __init__(self, tag: float) -> None:
        self.tag, self.weight = tag, 1.0
        self.queues: dict[str | None, OrderedDict[int, Waiter]] = {}
        self.waiting = 0
        self.standing = False
        self._average: float | None = None
        self._owed = 0.0

    def add(self, waiter: Waiter) -> None:
        queue = self.queues.get(waiter.adapter)
        if queue is None:
            queue = self.queues[waiter.adapter] = OrderedDict()  # not a dict: its first key takes long to find
        queue[waiter.number] = waiter
        self.waiting += 1

    def remove(self, waiter: Waiter) -> None:
        queue = self.queues[waiter.adapter]
        del queue[waiter.number]
        self.waiting -= 1
        if not queue:
            del self.queues[waiter.adapter]

    def first(self, fits: Fits) -> Waiter | None:
        """The oldest that fits; of each adapter only the oldest needs to be asked."""
        found: Waiter | None = None
        for queue in self.queues.values():
            oldest = next(iter(queue.values()))
            if (found is None or oldest.number < found.number) and fits(oldest):
                found = oldest
        return found

    def newest(self) -> Waiter:
        """The last to come. There must be one."""
        return max((next(reversed(queue.values())) for queue in self.queues.values()), key=lambda one: one.number)

    def charge(self, average: float) -> float:
        """Put one more request on the tag; the seconds charged. `average` is for a tenant of which nothing is known."""
        charged = average if self._average is None else self._average
        due = charged + self._owed
        self._owed = min(0.0, due)
        self.tag += max(0.0, due) / self.weight
        return charged

    def refund(self, charged: float) -> None:
        """What was charged was for nothing."""
        self._owed -= charged

    def settle(self, charged: float, held: float) -> None:
        """A request that `charged` seconds were put on the tag for held its place for `held`."""
        self._owed += held - charged
        self._average = held if self._average is None else self._average + _LEARNING * (held - self._average)


class Lane:
    """One class's tenants. `waiting` counts its requests, `passed` the turns others had while one of them could go."""

    def __init__(self) -> None:
        self.flows: dict[str, Flow] = {}
        self.waiting = 0
        self.passed = 0
        self._virtual = 0.0  # the largest tag with which anybody went
        self._line: list[tuple[float, int, Flow]] = []  # each flow that stands, once, unless it is set aside
        self._aside: dict[Flow, None] = {}  # those none of whose requests fit
        self._entries = 0  # breaks ties: first come, first served

    def add(self, waiter: Waiter) -> None:
        """Queue a request."""
        name = waiter.tenant.name
        flow = self.flows.get(name)
        if flow is None:
            if len(self.flows) > self.waiting + _MOST_IDLE:
                self._forget_idle()
            flow = self.flows[name] = Flow(self._virtual)
        elif not flow.waiting:
            flow.tag = max(flow.tag, self._virtual)
        flow.weight = waiter.tenant.weight
        flow.add(waiter)
        self.waiting += 1
        if not flow.standing:
            flow.standing = True
            self._stand(flow)
        elif flow in self._aside:
            del self._aside[flow]  # perhaps this one fits
            self._stand(flow)

    def remove(self, waiter: Waiter) -> None:
        """A waiting request goes away without having had its turn."""
        self.flows[waiter.tenant.name].remove(waiter)
        self.waiting -= 1

    def first(self, fits: Fits) -> Waiter | None:
        """Whose turn it is among those who fit. Tenants none of whose requests fit stand aside until `recall`."""
        line = self._line
        while line:
            tag, _, flow = line[0]
            if tag != flow.tag:  # it had left the queue, and has come back to a later tag
                heappop(line)
                self._stand(flow)
                continue
            waiter = flow.first(fits) if flow.waiting else None
            if waiter is not None:
                return waiter
            heappop(line)
            if flow.waiting:
                self._aside[flow] = None
            else:
                flow.standing = False
        return None

    def take(self, waiter: Waiter, average: float) -> tuple[Flow, float]:
        """The request that `first` has just named goes: its flow, and the seconds charged."""
        line, flow = self._line, self._line[0][2]
        self._virtual = max(self._virtual, flow.tag)
        charged = flow.charge(average)
        flow.remove(waiter)
        self.waiting -= 1
        self.passed = 0
        self._entries += 1
        heapreplace(line, (flow.tag, self._entries, flow))
        return flow, charged

    def recall(self) -> None:
        """Who fits has changed: those set aside stand in line again, behind nobody but those who had less.

        What they could not use for want of a slot is not made up for: it would keep the others from their places.
        """
        aside, self._aside = self._aside, {}
        for flow in aside:
            flow.tag = max(flow.tag, self._virtual)
            self._stand(flow)

    def clear(self) -> None:
        """Nobody waits in any lane: who had how much is of no consequence any more."""
        self.flows.clear()
        self._line.clear()
        self._aside.clear()
        self._virtual, self.passed = 0.0, 0

    def tenants(self) -> Iterator[tuple[str, Flow]]:
        """Those with waiting requests."""
        return ((name, flow) for name, flow in self.flows.items() if flow.waiting)

    def _stand(self, flow: Flow) -> None:
        self._entries += 1
        heappush(self._line, (flow.tag, self._entries, flow))

    def _forget_idle(self) -> None:
        self.flows = dict(self.tenants())
        self._line = sorted(entry for entry in self._line if entry[2].waiting)  # a sorted list is a heap
        self._aside = {flow: None for flow in self._aside if flow.waiting}
