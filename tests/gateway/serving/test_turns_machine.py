"""Whatever happens in whatever order: never too many on the engine, nobody lost, nobody forgotten, and no place empty
while somebody who fits waits for it. The clock is handed in: hours pass in milliseconds."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.domain import Tenant
from gateway.serving.fair import Waiter
from gateway.serving.turns import Ticket, Turns
from gateway.serving.urgency import Priority

TENANTS = [Tenant("acme"), Tenant("zeta", weight=3.0), Tenant("mini", weight=0.25)]
ADAPTERS: list[tuple[Tenant, str | None]] = [(tenant, None) for tenant in TENANTS]
ADAPTERS += [(tenant, f"{tenant.name}/a@{n}") for tenant in TENANTS for n in range(1, 4)]
asked = st.sampled_from(ADAPTERS)
classes = st.sampled_from(list(Priority))


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.turns = Turns(lambda: self.now)
        self.turns.resize(capacity=4, slots=2)
        self.running: dict[Ticket, str | None] = {}
        self.waiting: dict[Waiter, float] = {}  # → its deadline

    @rule(one=asked, priority=classes, patience=st.sampled_from([0.5, 20.0, 1e9]))
    def ask(self, one: tuple[Tenant, str | None], priority: Priority, patience: float) -> None:
        tenant, adapter = one
        waited = self.turns.waiting
        ticket = self.turns.enter_now(tenant, adapter, priority)
        if ticket is not None:
            assert not waited, "nobody may pass those who wait"
            self.goes(ticket, adapter)
        elif priority is not Priority.SHADOW:
            waiter = Waiter(tenant, adapter, priority)
            self.waiting[waiter] = self.now + patience
            self.turns.add(waiter)
            self.give()
            surplus = self.turns.surplus(waiter) if waiter.waits else None
            if surplus is not None:
                assert len(self.waiting) > self.turns.bound
                del self.waiting[surplus]
                self.turns.withdraw(surplus)
                self.give()

    @rule(one=asked, priority=classes, number=st.integers(2, 90))
    def ask_all_at_once(self, one: tuple[Tenant, str | None], priority: Priority, number: int) -> None:
        for _ in range(number):
            self.ask(one, priority, 20.0)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), twice=st.booleans())
    def end(self, data: st.DataObject, twice: bool) -> None:
        ticket = data.draw(st.sampled_from(list(self.running)))
        del self.running[ticket]
        ticket.leave()
        if twice:
            ticket.leave()
        self.give()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(list(self.waiting)))
        del self.waiting[waiter]
        self.turns.withdraw(waiter)
        self.give()

    @rule(seconds=st.sampled_from([0.1, 3.0, 12.0, 45.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for waiter, deadline in list(self.waiting.items()):
            if deadline <= self.now and waiter in self.waiting:
                del self.waiting[waiter]
                self.turns.withdraw(waiter)
                self.give()

    @rule(capacity=st.integers(1, 6), slots=st.integers(0, 4))
    def resize(self, capacity: int, slots: int) -> None:
        self.turns.resize(capacity=capacity, slots=slots)
        self.give()

    def give(self) -> None:
        while (turn := self.turns.next()) is not None:
            waiter, ticket = turn
            del self.waiting[waiter]  # a KeyError: it had gone, or was given two places
            self.goes(ticket, waiter.adapter)

    def goes(self, ticket: Ticket, adapter: str | None) -> None:
        before = self.adapters()
        self.running[ticket] = adapter
        assert len(self.running) <= self.turns.capacity
        if self.turns.slots.limit and adapter is not None and adapter not in before:
            assert len(before) < self.turns.slots.limit

    def adapters(self) -> set[str]:
        """Those that hold a slot: who came while there was no limit is not counted."""
        return {adapter for ticket, adapter in self.running.items() if adapter is not None and ticket.slot is not None}

    @invariant()
    def the_books_are_right(self) -> None:
        turns = self.turns
        assert (turns.running, turns.waiting) == (len(self.running), len(self.waiting))
        assert turns.slots.active.keys() == self.adapters()
        assert turns.waiting <= turns.bound or turns.capacity < 6  # it may have shrunk under those who wait

    @invariant()
    def no_place_is_empty_while_somebody_who_fits_waits(self) -> None:
        turns = self.turns
        if len(self.running) < turns.capacity:
            assert not any(turns.slots.fits(waiter) for waiter in self.waiting)
            assert self.running or not self.waiting, "all wait, and nobody will ever leave"

    @invariant()
    def most_adapters_are_never_barred(self) -> None:
        barred = sum(slot.barred for slot in self.turns.slots.active.values())
        assert barred <= max(2, self.turns.slots.limit // 2)

    def teardown(self) -> None:
        """Once nobody comes any more, everybody who still waits gets a turn, and nothing is left behind."""
        for _ in range(10_000):
            if not self.running:
                break
            self.now += 0.5
            ticket = next(iter(self.running))
            del self.running[ticket]
            ticket.leave()
            self.give()
        assert not self.waiting
        assert (self.turns.running, self.turns.waiting, self.turns.slots.active) == (0, 0, {})
        assert not any(lane.flows for lane in self.turns._lanes.values())


TestMachine = Machine.TestCase
TestMachine.settings = settings(stateful_step_count=40, deadline=None)
