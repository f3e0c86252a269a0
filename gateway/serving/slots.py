"""Which adapters may be in the engine's batch: at most `limit` distinct ones, shared between tenants by weight.

vLLM skips a request whose adapter does not fit into the batch for as long as those that fit keep coming (vllm#16876):
we never send it one that does not fit. An adapter holds a slot while requests run on it. Three rules share the slots:

- The last free slot is only for a tenant that stays within its share of them: whoever comes next finds one.
- An adapter that waits for a slot gets one, the tenant that holds least for its weight first: an adapter of the tenant
  that holds most is barred, which means that it is given no further request until its slot is free, as long as its
  running answers take. Of a tenant that holds more than the claimant would, that is done at once.
- Tenants that hold no more than the claimant would (it counts with what it asks for, so a tenant with many adapters
  makes room for itself) take turns: the adapter that got most service goes, one at a time, and none before its turn is
  over. A turn is longer in proportion as the claimant asks for more than they hold, but it ends.

At most half of the slots are barred at once, so that the others keep the engine busy meanwhile.

Time is handed in. It knows nothing of places, queues or engines.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.domain import Tenant
from gateway.serving.fair import Waiter
from gateway.serving.urgency import Priority

RECENT_SECONDS = 30.0
"""How long a tenant that used an adapter is expected to come again, and a slot is kept free for that."""
LOW_SECONDS = 10.0
"""How long a LOW request waits for a slot to become free by itself before an adapter of others is barred for it."""
_MOST_RECENT = 1024


class Slot:
    """One adapter in the batch: its running requests, and how many it was given since it came."""

    __slots__ = ("adapter", "barred", "running", "served", "since", "tenant")

    def __init__(self, adapter: str, tenant: Tenant, since: float) -> None:
        self.adapter, self.tenant, self.since = adapter, tenant, since
        self.running = self.served = 0
        self.barred = False


class _Demand:
    """The waiting requests of one adapter. `urgent` counts those that are not LOW."""

    __slots__ = ("since", "tenant", "urgent", "waiting")

    def __init__(self, waiter: Waiter) -> None:
        self.tenant, self.since = waiter.tenant, waiter.since
        self.waiting = self.urgent = 0


class Slots:
    """`limit` 0: no limit, and nothing is counted. `changed` is set whenever other requests may fit than before."""

    def __init__(self) -> None:
        self.limit = 0
        self.active: dict[str, Slot] = {}
        self.changed = False
        self._held: dict[str, int] = {}  # slots by tenant
        self._barred: list[Slot] = []
        self._demand: dict[str, _Demand] = {}
        self._recent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tenant → (last use, weight)

    @property
    def free(self) -> int:
        return max(0, self.limit - len(self.active))

    def resize(self, limit: int) -> None:
        self.limit, self.changed = limit, True

    def fits(self, waiter: Waiter) -> bool:
        """Whether its adapter may have one more request on the engine now."""
        if waiter.adapter is None or not self.limit:
            return True
        slot = self.active.get(waiter.adapter)
        return not slot.barred if slot is not None else self._may_take(waiter.tenant, self.free)

    def enter(self, adapter: str, tenant: Tenant, now: float) -> Slot | None:
        """One more request of this adapter; None when it does not fit."""
        slot = self.active.get(adapter)
        if slot is None:
            if not self._may_take(tenant, self.free):
                return None
            slot = self.active[adapter] = Slot(adapter, tenant, now)
            self._held[tenant.name] = self._held.get(tenant.name, 0) + 1
            self._used(tenant, now)
            self.changed = True
        elif slot.barred:
            return None
        slot.running += 1
        slot.served += 1
        return slot

    def leave(self, slot: Slot, now: float) -> None:
        """One of its requests has ended."""
        slot.running -= 1
        if slot.running:
            return
        del self.active[slot.adapter]
        name = slot.tenant.name
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]
        if slot.barred:
            self._barred.remove(slot)
        self._used(slot.tenant, now)
        self.changed = True

    def await_slot(self, waiter: Waiter) -> None:
        """A request has joined the queue."""
        if waiter.adapter is None:
            return
        demand = self._demand.get(waiter.adapter)
        if demand is None:
            demand = self._demand[waiter.adapter] = _Demand(waiter)
        demand.waiting += 1
        demand.urgent += waiter.priority > Priority.LOW

    def forgo_slot(self, waiter: Waiter) -> None:
        """A request has left the queue, for the engine or for good."""
        if waiter.adapter is None:
            return
        demand = self._demand[waiter.adapter]
        demand.waiting -= 1
        demand.urgent -= waiter.priority > Priority.LOW
        if not demand.waiting:
            del self._demand[waiter.adapter]

    def balance(self, now: float, turn: float) -> None:
        """Bar as many adapters as others wait for, and no more. Call it when nobody who waits fits.

        `turn`: seconds for which a tenant keeps a slot that it is entitled to.
        """
        if not self._demand and not self._barred:
            return
        self._expire(now)
        claims = self._claims(now) if self.limit else []
        for tenant in claims[len(self._barred) :]:
            slot = self._victim(tenant, now, turn)
            if slot is not None:
                slot.barred = self.changed = True
                self._barred.append(slot)
        for slot in self._barred[len(claims) :]:
            slot.barred, self.changed = False, True
        del self._barred[len(claims) :]

    def _claims(self, now: float) -> list[Tenant]:
        """The tenants for whose adapters a slot has to be made free, first those who hold least for their weight."""
        waiting = [
            demand.tenant
            for adapter, demand in self._demand.items()
            if adapter not in self.active and (demand.urgent or now - demand.since >= LOW_SECONDS)
        ]
        waiting.sort(key=self._asks)
        free, claims = self.free, list[Tenant]()
        for tenant in waiting:
            if self._may_take(tenant, free):
                free -= 1
            else:
                claims.append(tenant)
        return claims[: max(1, self.limit // 2)]

    def _asks(self, tenant: Tenant) -> float:
        """What a tenant would hold for its weight with one slot more."""
        return (self._held.get(tenant.name, 0) + 1) / tenant.weight

    def _victim(self, claimant: Tenant, now: float, turn: float) -> Slot | None:
        """The adapter to bar for a tenant that asks for one more slot."""
        own, found, most = self._asks(claimant), None, (0.0, 0)
        for slot in self.active.values():
            tenant = slot.tenant
            held = own if tenant.name == claimant.name else self._held[tenant.name] / tenant.weight
            if slot.barred or (held <= own and (self._barred or now - slot.since < turn * own / held)):
                continue
            # Of a tenant with more than the claimant any will do: the one that is free soonest.
            rank = (held, -slot.running if held > own else slot.served)
            if found is None or rank > most:
                found, most = slot, rank
        return found

    def _may_take(self, tenant: Tenant, free: int) -> bool:
        if free != 1:
            return free > 1
        others = sum(weight for name, (_, weight) in self._recent.items() if name != tenant.name)
        held = self._held.get(tenant.name, 0)
        return not held or (held + 1) * (others + tenant.weight) <= self.limit * tenant.weight

    def _used(self, tenant: Tenant, now: float) -> None:
        self._recent[tenant.name] = (now, tenant.weight)
        self._recent.move_to_end(tenant.name)
        self._expire(now)

    def _expire(self, now: float) -> None:
        """Forget tenants that have not used an adapter of late, oldest first; whoever holds a slot uses it."""
        recent = self._recent
        while recent:
            name, (used, weight) = next(iter(recent.items()))
            if now - used < RECENT_SECONDS and len(recent) <= _MOST_RECENT:
                return
            if name in self._held and len(recent) <= _MOST_RECENT:
                recent[name] = (now, weight)
                recent.move_to_end(name)
            else:
                del recent[name]
                self.changed = True  # there may be one less to keep a slot for
