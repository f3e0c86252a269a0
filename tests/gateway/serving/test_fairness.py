"""Who gets how much of a full engine, in simulated time (`crowd.py`): seeded, so that a claim holds or does not."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import Tenant
from gateway.serving.fair import Waiter
from gateway.serving.slots import RECENT_SECONDS
from gateway.serving.turns import PATIENCE, Turns
from gateway.serving.urgency import Priority
from tests.gateway.serving.crowd import Sender, play

pytestmark = pytest.mark.long

HOT = Tenant("hot")


@pytest.mark.parametrize(("capacity", "tenants"), [(32, 10), (8, 4)])
def test_a_tenant_at_ten_times_its_share_leaves_the_others_p99_within_1_5_of_what_it_was(
    capacity: int, tenants: int
) -> None:
    share = capacity / tenants
    others = [Sender(Tenant(f"t{n}"), rate=0.7 * share) for n in range(tenants - 1)]
    seconds = 20_000 / capacity
    alone = play(others, capacity=capacity, seconds=seconds)
    together = play([*others, Sender(HOT, rate=10 * share)], capacity=capacity, seconds=seconds)
    assert together.p99(others) <= 1.5 * alone.p99(others)
    assert together.refused.keys() == {"hot"}
    assert together.busy >= 0.99 * capacity * seconds, "what the others leave is used"


@pytest.mark.parametrize(("slots", "mean"), [(4, 1.0), (8, 4.0)])
def test_rare_adapters_beside_a_hot_tenant_with_more_adapters_than_slots_keep_their_p99(
    slots: int, mean: float
) -> None:
    rare = [Sender(Tenant(f"t{n}"), rate=0.5, adapters=(f"t{n}/a@1",)) for n in range(3)]
    hot = Sender(HOT, rate=40 / mean, mean=mean, adapters=[f"hot/a@{n}" for n in range(slots + 2)])
    alone = play(rare, capacity=32, slots=slots, seconds=600)
    together = play([*rare, hot], capacity=32, slots=slots, seconds=600)
    assert together.p99(rare) <= 1.5 * alone.p99(rare)
    assert together.busy >= 0.6 * 32 * 600, "changing turns leaves some places empty, not most"
    assert max(together.waits["hot"]) < 120, "the hot tenant's own adapters take turns"


def test_a_tenant_with_long_answers_gets_no_more_of_the_engine_than_one_with_short_ones() -> None:
    senders = [Sender(Tenant("short"), rate=50, mean=0.5), Sender(Tenant("long"), rate=6, mean=8)]
    outcome = play(senders, capacity=32, seconds=400)
    assert outcome.service["long"] / outcome.service["short"] == pytest.approx(1, rel=0.15)


def test_shares_follow_weights() -> None:
    weights = {"one": 1.0, "two": 2.0, "five": 5.0}
    senders = [Sender(Tenant(name, weight=weight), rate=6 * weight) for name, weight in weights.items()]
    outcome = play(senders, capacity=16, seconds=400)
    for name, weight in weights.items():
        assert outcome.service[name] / outcome.service["one"] == pytest.approx(weight, rel=0.1)


@given(
    weights=st.lists(st.floats(0.25, 8), min_size=2, max_size=5),
    capacity=st.integers(1, 8),
    turns=st.integers(1, 60),
)
def test_among_backlogged_tenants_no_one_is_ahead_by_more_than_a_request_each(
    weights: list[float], capacity: int, turns: int
) -> None:
    now = 0.0
    one = Turns(lambda: now)
    one.resize(capacity=capacity, slots=0)
    tenants = [Tenant(f"t{n}", weight=weight) for n, weight in enumerate(weights)]
    running = [one.enter_now(tenants[0], None, Priority.NORMAL) for _ in range(capacity)]
    for tenant in tenants:
        for _ in range(turns + 1):
            one.add(Waiter(tenant, None, Priority.NORMAL))
    had: Counter[str] = Counter()
    for _ in range(turns):
        now += 1.0 / capacity
        ticket = running.pop(0)
        assert ticket is not None
        ticket.since = now - 1.0  # each holds its place for a second
        ticket.leave()
        turn = one.next()
        assert turn is not None
        had[turn[0].tenant.name] += 1
        running.append(turn[1])
    for a in tenants:
        for b in tenants:
            ahead = had[a.name] / a.weight - had[b.name] / b.weight
            assert ahead <= 1 / a.weight + 1 / b.weight + 1e-6


@pytest.mark.parametrize("lower", [Priority.LOW, Priority.NORMAL])
def test_a_higher_class_goes_first_and_a_lower_one_gets_every_ninth_turn(lower: Priority) -> None:
    turns = Turns(lambda: 0.0)
    turns.resize(capacity=1, slots=0)
    held = turns.enter_now(HOT, None, Priority.NORMAL)
    for _ in range(60):
        turns.add(Waiter(HOT, None, lower))
        turns.add(Waiter(Tenant("first"), None, Priority.HIGH))
    order = []
    for _ in range(27):
        assert held is not None
        held.leave()
        turn = turns.next()
        assert turn is not None
        order.append(turn[0].priority)
        held = turn[1]
    assert order == ([Priority.HIGH] * PATIENCE + [lower]) * 3


def test_low_traffic_waits_for_slots_but_not_for_ever() -> None:
    busy = Sender(HOT, rate=30, adapters=("hot/a@1", "hot/a@2"))
    low = Sender(Tenant("batch"), rate=0.1, adapters=("batch/a@1",), priority=Priority.LOW)
    outcome = play([busy, low], capacity=16, slots=2, seconds=600)
    assert len(outcome.waits["batch"]) > 30
    assert max(outcome.waits["batch"]) < 60


def test_a_tenant_of_little_weight_gets_a_slot_in_the_end() -> None:
    heavy = [Sender(Tenant(f"h{n}", weight=4), rate=12, adapters=(f"h{n}/a@1", f"h{n}/a@2")) for n in range(2)]
    light = Sender(Tenant("light", weight=0.1), rate=0.2, adapters=("light/a@1",))
    outcome = play([*heavy, light], capacity=16, slots=3, seconds=600)
    assert len(outcome.waits["light"]) > 60
    assert max(outcome.waits["light"]) < 120


def test_one_tenant_alone_has_every_slot_and_two_do_not_let_one_have_them_all() -> None:
    turns = Turns(lambda: 0.0)
    turns.resize(capacity=100, slots=4)
    names = [f"hot/a@{n}" for n in range(5)]
    tickets = [turns.enter_now(HOT, name, Priority.NORMAL) for name in names]
    assert [ticket is not None for ticket in tickets] == [True] * 4 + [False]
    for ticket in tickets[1:4]:
        assert ticket is not None
        ticket.leave()
    other = turns.enter_now(Tenant("other"), "other/a@1", Priority.NORMAL)
    assert other is not None
    other.leave()
    again = [turns.enter_now(HOT, name, Priority.NORMAL) for name in names[1:4]]
    assert [ticket is not None for ticket in again] == [True, True, False], "the last free slot is the others'"
    assert turns.enter_now(Tenant("other"), "other/a@1", Priority.NORMAL) is not None


def test_tenants_with_an_adapter_each_take_turns_on_fewer_slots() -> None:
    senders = [Sender(Tenant(f"t{n}"), rate=12, adapters=(f"t{n}/a@1",)) for n in range(5)]
    outcome = play(senders, capacity=16, slots=2, seconds=600)
    assert len(outcome.service) == 5
    assert max(outcome.service.values()) < 1.5 * min(outcome.service.values())


def test_what_a_tenant_could_not_use_for_want_of_a_slot_is_not_made_up_for() -> None:
    turns = Turns(lambda: 0.0)
    turns.resize(capacity=2, slots=1)
    base, held = Tenant("base"), turns.enter_now(HOT, "hot/a@1", Priority.NORMAL)
    running = turns.enter_now(base, None, Priority.NORMAL)
    for _ in range(30):
        turns.add(Waiter(base, None, Priority.NORMAL))
        turns.add(Waiter(Tenant("late"), "late/a@1", Priority.NORMAL))
    order = []
    for number in range(30):
        assert held is not None and running is not None
        if number == 20:
            held.leave()
            turn = turns.next()
            assert turn is not None
        running.leave()
        turn = turns.next()
        assert turn is not None
        order.append(turn[0].tenant.name)
        running = turn[1]
    assert order[:20] == ["base"] * 20
    assert order[20:].count("base") >= 4


def test_an_adapter_is_barred_for_a_tenant_with_none_and_let_in_again_when_that_gives_up() -> None:
    turns = Turns(lambda: 0.0)
    turns.resize(capacity=100, slots=2)
    for adapter in ("hot/a@1", "hot/a@1", "hot/a@2"):
        assert turns.enter_now(HOT, adapter, Priority.NORMAL)
    other, again = Waiter(Tenant("other"), "other/a@1", Priority.NORMAL), Waiter(HOT, "hot/a@2", Priority.NORMAL)
    turns.add(other)
    assert turns.next() is None
    turns.add(again)
    assert turns.next() is None, "a@2 is barred: with fewer running answers it is free sooner"
    turns.withdraw(other)
    turn = turns.next()
    assert turn is not None and turn[0] is again


def test_a_tenant_with_none_comes_before_one_that_waits_for_its_third_slot() -> None:
    turns = Turns(lambda: 0.0)
    turns.resize(capacity=100, slots=2)
    for adapter in ("hot/a@1", "hot/a@2"):
        assert turns.enter_now(HOT, adapter, Priority.NORMAL)
    turns.add(Waiter(HOT, "hot/a@3", Priority.NORMAL))
    assert turns.next() is None
    assert not any(slot.barred for slot in turns.slots.active.values()), "its own have not had their turn"
    turns.add(Waiter(Tenant("other"), "other/a@1", Priority.NORMAL))
    assert turns.next() is None
    assert sum(slot.barred for slot in turns.slots.active.values()) == 1


def test_a_slot_is_not_kept_free_for_those_who_have_not_come_for_long() -> None:
    now = 0.0
    turns = Turns(lambda: now)
    turns.resize(capacity=100, slots=4)
    other = turns.enter_now(Tenant("other"), "other/a@1", Priority.NORMAL)
    assert other is not None
    other.leave()
    for adapter in ("hot/a@1", "hot/a@2", "hot/a@3"):
        assert turns.enter_now(HOT, adapter, Priority.NORMAL)
    turns.add(Waiter(HOT, "hot/a@4", Priority.LOW))
    assert turns.next() is None
    now = RECENT_SECONDS + 1
    assert turns.next() is not None


def test_shadow_traffic_comes_in_only_where_it_is_in_nobodys_way() -> None:
    turns = Turns(lambda: 0.0)
    turns.resize(capacity=4, slots=2)

    def shadow(adapter: str | None) -> bool:
        ticket = turns.enter_now(HOT, adapter, Priority.SHADOW)
        if ticket is not None:
            ticket.leave()
        return ticket is not None

    assert shadow("hot/a@1")
    assert turns.enter_now(HOT, "hot/a@1", Priority.NORMAL)
    assert (shadow("hot/a@1"), shadow("hot/a@2"), shadow(None)) == (True, False, True), "never the last free slot"
    for _ in range(2):
        assert turns.enter_now(HOT, None, Priority.NORMAL)
    assert not shadow(None), "three quarters of the places are taken"


def test_tenants_that_come_and_go_leave_nothing_behind() -> None:
    now = 0.0
    turns = Turns(lambda: now)
    turns.resize(capacity=1, slots=2)
    assert turns.enter_now(HOT, None, Priority.NORMAL)
    turns.add(Waiter(HOT, None, Priority.NORMAL))  # somebody always waits
    for number in range(5000):
        now += 0.001
        waiter = Waiter(Tenant(f"t{number}"), f"t{number}/a@1", Priority.NORMAL)
        turns.add(waiter)
        assert turns.next() is None
        turns.withdraw(waiter)
    assert max(len(lane.flows) for lane in turns._lanes.values()) < 400
    for number in range(5000):
        ticket = turns.slots.enter(f"t{number}/a@1", Tenant(f"t{number}"), now)
        assert ticket is not None
        turns.slots.leave(ticket, now)
    assert len(turns.slots._recent) <= 1024
