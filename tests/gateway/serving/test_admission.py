"""`Admission` as the door uses it: who goes on at once, who waits, how the waiting ends, and what is then said."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.domain import Tenant
from gateway.engine import fake
from gateway.engine.base import EngineStatus
from gateway.engine.client import HttpEngine
from gateway.engine.fake_engine import Options
from gateway.errors import EngineTimeout, GatewayError, RateLimited, Unavailable
from gateway.serving.admission import Admission, room
from gateway.serving.turns import LEAST_QUEUE, Ticket
from gateway.serving.urgency import Priority
from gateway.settings import TimeoutSettings

ACME, ZETA = Tenant("acme"), Tenant("zeta")
NORMAL = Priority.NORMAL
MODEL = "test/base"


def admission(*, capacity: int = 1, slots: int = 2) -> Admission:
    one = Admission(clock=time.monotonic)
    one.resize(capacity=capacity, slots=slots)
    return one


def enter(one: Admission, tenant: Tenant = ACME, adapter: str | None = None) -> Ticket:
    ticket = one.enter_now(tenant, adapter, NORMAL)
    assert ticket is not None
    return ticket


async def test_who_comes_to_a_full_engine_waits_until_somebody_leaves() -> None:
    one = admission()
    first = enter(one)
    assert one.enter_now(ACME, None, NORMAL) is None
    async with asyncio.TaskGroup() as group:
        second = group.create_task(one.enter(ACME, None, NORMAL, seconds=5))
        await asyncio.sleep(0)
        assert (one.running, one.waiting, second.done()) == (1, 1, False)
        first.leave()
        first.leave()  # twice is once
        assert one.enter_now(ACME, None, NORMAL) is None, "the place is the second's already"
    assert (one.running, one.waiting) == (1, 0)
    second.result().leave()
    assert one.running == 0


async def test_enter_does_not_wait_where_nothing_is_to_be_waited_for() -> None:
    one = admission(capacity=2)
    for adapter in (None, "acme/a@1"):
        (await one.enter(ACME, adapter, NORMAL, seconds=5)).leave()
    assert (one.running, one.waiting) == (0, 0)


async def test_the_base_model_passes_a_request_that_waits_for_a_slot() -> None:
    one = admission(capacity=4, slots=1)
    held = enter(one, ACME, "acme/a@1")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(one.enter(ZETA, "zeta/a@1", NORMAL, seconds=5))
        await asyncio.sleep(0)
        assert one.enter_now(ZETA, None, NORMAL) is None, "it is for the queue to say who passes whom"
        (await one.enter(ZETA, None, NORMAL, seconds=5)).leave()
        assert not waiting.done()
        held.leave()
    waiting.result().leave()


async def test_a_deadline_that_passes_in_the_queue_is_a_504_with_its_own_code() -> None:
    one = admission()
    held = enter(one)
    with pytest.raises(EngineTimeout) as late:
        await one.enter(ACME, None, NORMAL, seconds=0.02)
    assert (late.value.status, late.value.code) == (504, "deadline_exceeded")
    assert one.waiting == 0
    held.leave()
    assert one.running == 0


async def test_a_client_that_leaves_the_queue_leaves_nothing_behind() -> None:
    one = admission()
    held = enter(one)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.enter(ACME, None, NORMAL, seconds=5)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        assert one.waiting == 2
        tasks[1].cancel()
        held.leave()  # before the cancelled one could say so: its turn is the next one's
        await asyncio.sleep(0)
        (await tasks[2]).leave()
    assert (one.running, one.waiting) == (0, 0)


async def test_a_client_that_leaves_just_after_its_turn_came_gives_the_place_to_the_next() -> None:
    one = admission()
    held = enter(one)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.enter(ACME, None, NORMAL, seconds=5)) for _ in range(2)]
        await asyncio.sleep(0)
        held.leave()
        tasks[0].cancel()
        (await tasks[1]).leave()
    assert tasks[0].cancelled()
    assert (one.running, one.waiting) == (0, 0)


async def test_a_full_queue_refuses_whoever_has_most_in_it_and_says_when_to_come_back() -> None:
    one = admission()
    held = enter(one)
    async with asyncio.TaskGroup() as group:

        async def ask(tenant: Tenant) -> GatewayError | Ticket:
            try:
                ticket = await one.enter(tenant, None, NORMAL, seconds=30)
            except GatewayError as error:
                return error
            ticket.leave()
            return ticket

        many = [group.create_task(ask(ACME)) for _ in range(LEAST_QUEUE)]
        await asyncio.sleep(0)
        alone = await ask(ACME)
        assert isinstance(alone, Unavailable), "it is full of this tenant's: nobody else is kept out"
        assert (alone.status, alone.code) == (503, "server_is_overloaded")
        assert 1 <= (alone.retry_after or 0) <= 60
        few = group.create_task(ask(ZETA))
        await asyncio.sleep(0.01)
        pushed_out = many.pop()
        assert pushed_out.done() and not few.done(), "the newest of who has most makes room for the other tenant"
        assert isinstance(pushed_out.result(), RateLimited)
        again = await ask(ACME)
        assert isinstance(again, RateLimited) and 1 <= (again.retry_after or 0) <= 60
        assert one.waiting == LEAST_QUEUE
        held.leave()
    assert all(isinstance(task.result(), Ticket) for task in (*many, few))
    assert (one.running, one.waiting) == (0, 0)


async def test_more_room_lets_those_in_who_wait() -> None:
    one = admission()
    enter(one)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(one.enter(ACME, None, NORMAL, seconds=5))
        await asyncio.sleep(0)
        one.resize(capacity=4, slots=2)
    assert (one.running, one.waiting) == (4, 0)


def test_an_engine_that_says_nothing_is_given_what_comes() -> None:
    one = Admission(clock=time.monotonic)
    assert len([enter(one, ACME, f"acme/a@{n}") for n in range(1, 4097)]) == 4096
    assert one.enter_now(ACME, None, NORMAL) is None


def test_workers_share_the_places_of_an_engine_and_leave_none_empty() -> None:
    status = EngineStatus("boot", MODEL, plugin=True, slots=4, concurrency=128)
    assert room(status, workers=1) == (136, 4)
    assert room(status, workers=3) == (46, 4)
    assert 3 * room(status, workers=3)[0] >= 128
    assert room(EngineStatus("boot", MODEL, plugin=False), workers=4) == (4096, 0)


def test_workers_leave_each_other_the_slots_that_are_in_use() -> None:
    status = EngineStatus("boot", MODEL, plugin=True, slots=4, concurrency=128)
    mine, theirs = frozenset({"a@1", "b@1"}), frozenset({"b@1", "c@1"})
    assert room(status, workers=2, using=mine, used_elsewhere=mine) == (68, 4), "a shared slot serves both"
    assert room(status, workers=2, using=mine, used_elsewhere=theirs) == (68, 3)
    many = frozenset(f"c@{n}" for n in range(9))
    assert room(status, workers=2, using=mine, used_elsewhere=many)[1] == 2, "at least its part"
    assert room(status, workers=8, using=mine, used_elsewhere=many)[1] == 1


@asynccontextmanager
async def engine(directory: Path, *adapters: str) -> AsyncIterator[HttpEngine]:
    """The shipped fake with few places and slots, as vLLM schedules them, each answer of 40 ms."""
    options = Options(base_model=MODEL, slots=8, max_loras=2, ttft=0.04, tokens=1)
    async with fake.running(options) as running:
        client = HttpEngine(running.url, base_model=MODEL, timeouts=TimeoutSettings())
        for name in adapters:
            path = directory / name.replace("/", "-")
            path.mkdir()
            await client.load(name, path)
        yield client
        await client.aclose()


class Crowd:
    """Requests to the engine: through an admission, or without one straight into the engine's own queue."""

    def __init__(self, client: HttpEngine, one: Admission | None) -> None:
        self._client, self._admission = client, one

    async def ask(self, tenant: Tenant, adapter: str | None) -> float:
        """Seconds that one request takes."""
        asked, ticket = time.monotonic(), None
        if self._admission is not None:
            ticket = self._admission.enter_now(tenant, adapter, NORMAL)
            if ticket is None:
                ticket = await self._admission.enter(tenant, adapter, NORMAL, seconds=30)
        try:
            body = json.dumps({"model": adapter or MODEL, "prompt": "hello"}).encode()
            answer = await self._client.send(b"/v1/completions", (), body)
            assert answer.status == 200
            await answer.read()
            answer.close()
        finally:
            if ticket is not None:
                ticket.leave()
        return time.monotonic() - asked

    async def always(self, tenant: Tenant, adapter: str | None) -> None:
        while True:
            await self.ask(tenant, adapter)

    async def polite(self, adapter: str | None, *, hot: list[str | None], seconds: float) -> list[float]:
        """What eight requests of `zeta`, one after the other, take beside as many of `acme` as `hot` names."""
        took: list[float] = []
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.always(ACME, one)) for one in hot]
            await asyncio.sleep(0.2)
            try:
                async with asyncio.timeout(seconds):
                    while len(took) < 8:
                        took.append(await self.ask(ZETA, adapter))
            except TimeoutError:
                pass
            for task in tasks:
                task.cancel()
        return sorted(took)


async def fitted(client: HttpEngine) -> Admission:
    capacity, slots = room(await client.status(), workers=1)
    assert (capacity, slots) == (9, 2)
    return admission(capacity=capacity, slots=slots)


@pytest.mark.long
async def test_a_hot_tenant_s_queue_is_its_own(tmp_path: Path) -> None:
    hot: list[str | None] = [None] * 60
    async with engine(tmp_path) as client:
        straight = await Crowd(client, None).polite(None, hot=hot, seconds=20)
        one = await fitted(client)
        through = await Crowd(client, one).polite(None, hot=hot, seconds=20)
        assert (one.running, one.waiting) == (0, 0)
    assert through[4] < straight[4] / 2  # about 50 ms and 330


@pytest.mark.long
async def test_a_rare_adapter_is_starved_by_the_engine_and_served_through_admission(tmp_path: Path) -> None:
    hot: list[str | None] = ["acme/a@1", "acme/b@1"] * 8
    async with engine(tmp_path, "acme/a@1", "acme/b@1", "zeta/a@1") as client:
        straight = await Crowd(client, None).polite("zeta/a@1", hot=hot, seconds=1.5)
        one = await fitted(client)
        through = await Crowd(client, one).polite("zeta/a@1", hot=hot, seconds=20)
        assert (one.running, one.waiting) == (0, 0)
    assert len(through) == 8
    assert len(straight) < 8 or through[4] < straight[4] / 2
