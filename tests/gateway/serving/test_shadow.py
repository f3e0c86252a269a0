"""Shadow traffic against the real fake engine: what is mirrored, what is recorded, and that it takes only leftovers."""

from __future__ import annotations

import asyncio
import timeit
from typing import Any

import pytest

from gateway.domain import Shadow, Tenant
from gateway.identity import is_inference_of, unit_of
from gateway.serving.endpoints import COMPLETIONS, MESSAGES, RESPONSES, Endpoint
from gateway.serving.exchange import MOST_KEPT
from gateway.serving.shadow import Shadows
from tests.gateway.serving.house import BASE_MODEL, HELLO, SECRET, alias, picture, until
from tests.gateway.serving.mirrored import ALL, ASKED, ONE, TWO, Sent, mirrored, over, stage


def test_a_request_without_a_shadow_costs_less_than_a_microsecond() -> None:
    exchange = over(mirrored(None))
    shadows = Shadows(*[None] * 3)  # type: ignore[arg-type]  # none of them is touched
    best = min(timeit.repeat(lambda: shadows.consider(exchange), number=10_000, repeat=5)) / 10_000
    print(f"{best * 1e6:.2f} µs")
    assert best < 1e-6


# What is sent and recorded.


@pytest.mark.parametrize("stream", [False, True])
async def test_the_candidate_is_asked_the_same_in_one_piece_and_the_answer_is_recorded_apart(stream: bool) -> None:
    async with stage() as here:
        exchange = here.consider(body=ASKED | {"stream": stream})
        row = await here.recorded()
    [sent] = here.asked()
    assert {name: sent[name] for name in sent if name != "cache_salt"} == ASKED | {"model": str(TWO)}
    assert row.id != exchange.id and is_inference_of(SECRET, "acme", row.id)
    assert (row.shadow_of, row.variant, row.reason, row.experiment) == (exchange.id, "shadow", "shadow", None)
    assert (row.assigned, row.served, row.served_digest) == (str(TWO), str(TWO), f"sha256:{TWO}")
    assert (row.tenant, row.alias, row.alias_revision, row.key_id) == ("acme", "tuned", 1, "id-of-acme")
    assert (row.unit, row.episode, row.propensity) == (unit_of(SECRET, "acme", "user-1"), "talk-1", 1.0)
    assert (row.status, row.outcome, row.finish_reason, row.output_tokens) == (200, "ok", "length", 4)
    assert row.params["temperature"] == 0.5 and row.duration_ms is not None and row.duration_ms > 0
    assert (row.stream, row.messages, row.answer, row.trace_id) == (False, None, None, None)
    assert (here.shadows.answered, here.shadows.failed, here.shadows.dropped) == (1, 0, 0)


async def test_a_named_version_is_not_mirrored_though_an_alias_has_its_name() -> None:
    snapshot = picture(aliases=[alias("acme", "support", ("tuned", 1, str(ONE)), shadow=ALL)])
    async with stage(snapshot) as here:
        here.consider(body=ASKED | {"model": "support@1"})
        here.consider(body=ASKED | {"model": "support"})
        await here.recorded()
        assert len(here.asked()) == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (COMPLETIONS, {"prompt": "hello"}),
        (RESPONSES, {"input": "hello"}),
        (MESSAGES, {"messages": HELLO, "max_tokens": 9}),
    ],
)
async def test_every_kind_of_generation_is_mirrored(endpoint: Endpoint, body: dict[str, Any], stream: bool) -> None:
    async with stage(mirrored(tenants=[Tenant("acme", store_content=True)])) as here:
        here.consider(body=body | {"model": "tuned", "stream": stream}, endpoint=endpoint)
        row = await here.recorded()
    assert (row.endpoint, row.outcome, row.served) == (endpoint.path, "ok", str(TWO))
    assert row.answer is not None and str(TWO) in row.answer
    assert row.output_tokens is not None and not any(one.get("stream") for one in here.asked())


async def test_content_is_kept_of_tenants_that_keep_it_and_within_bounds() -> None:
    async with stage(mirrored(tenants=[Tenant("acme", store_content=True)])) as here:
        here.consider()
        row = await here.recorded()
        assert row.messages == HELLO
        assert row.answer is not None and str(TWO) in row.answer
        here.consider(call=Sent(bytes(MOST_KEPT + 1)))
        assert (await here.recorded(2)).messages is None


async def test_the_base_model_may_be_the_candidate() -> None:
    async with stage(mirrored(Shadow(None, 1.0)), loaded=False) as here:
        here.consider()
        row = await here.recorded()
    assert (row.assigned, row.served, row.served_digest) == ("base", "base", None)
    assert here.asked()[0]["model"] == BASE_MODEL


# What goes wrong is recorded, and only recorded.


@pytest.mark.parametrize(
    ("fault", "outcome", "status"),
    [
        ({"fail_requests": 1}, "engine_error", 502),
        ({"cut_after_chunks": 1}, "engine_error", 502),
        ({"hang": True}, "timeout", 504),
    ],
)
async def test_a_candidate_that_fails_is_recorded_and_logged_as_no_error_of_ours(
    caplog: pytest.LogCaptureFixture, fault: dict[str, Any], outcome: str, status: int
) -> None:
    async with stage(seconds=0.3) as here:
        here.engine.switch(fault | {"only": [str(TWO)]})
        here.consider()
        row = await here.recorded()
        assert (row.outcome, row.status, row.served, row.output_tokens) == (outcome, status, None, None)
        assert (here.shadows.answered, here.shadows.failed) == (0, 1)
        await until(lambda: here.nothing_is_left)
        here.engine.switch({"hang": False, "cut_after_chunks": None})
        here.consider()
        assert (await here.recorded(2)).outcome == "ok"
    assert not [one for one in caplog.records if one.levelname in ("ERROR", "WARNING")]


async def test_what_the_candidate_refuses_is_its_failure() -> None:
    async with stage() as here:
        here.consider(body=ASKED | {"max_tokens": 100_000})
        assert (await here.recorded()).outcome == "client_error"


async def test_a_defect_in_one_takes_no_other_along(caplog: pytest.LogCaptureFixture) -> None:
    async with stage() as here:
        here.shadows.consider(over(here.snapshot, request=None))
        here.consider()
        await here.recorded()
        await until(lambda: here.nothing_is_left)
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == ["a defect of the gateway"]


# Leftovers only.


async def test_no_more_than_a_few_are_open_and_none_waits() -> None:
    async with stage(most=2) as here:
        here.engine.switch({"hang": True, "only": [str(TWO)]})
        here.consider(5)
        assert (here.shadows.open, here.shadows.dropped) == (2, 3)
        await until(lambda: here.engine.counts["in_flight"] == 2)
        assert len(here.asked()) == 2


async def test_a_candidate_that_is_not_there_is_not_fetched() -> None:
    async with stage(loaded=False) as here:
        loads = here.engine.counts["loads"]
        here.consider(3)
        assert (here.shadows.open, here.shadows.dropped) == (0, 3)
        assert here.engine.counts["loads"] == loads and here.asked() == []


async def test_a_candidate_that_cannot_be_loaded_leaves_the_gateway_ready() -> None:
    async with stage(loaded=False) as here:
        await until(lambda: TWO in here.residency.failed)
        assert here.residency.ready and here.residency.resident == {ONE}


async def test_a_candidate_is_fetched_beforehand_and_stays_unused() -> None:
    async with stage() as here:
        await here.residency.reconcile()
        assert here.residency.resident == {ONE, TWO}


async def test_the_engine_is_away_and_nothing_is_mirrored() -> None:
    async with stage() as here:
        here.residency.ready = False
        here.consider()
        assert (here.shadows.open, here.shadows.dropped) == (0, 1)


class Gate:
    """Admission's place: so many ways in, and what came through them."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.asked: list[tuple[str, str | None]] = []

    def enter(self, tenant: Tenant, adapter: str | None) -> Gate | None:
        self.asked.append((tenant.name, adapter))
        if not self.free:
            return None
        self.free -= 1
        return self

    def leave(self) -> None:
        self.free += 1


@pytest.mark.parametrize("end", ["answered", "failed", "given up"])
async def test_a_place_is_asked_for_held_and_left_however_it_ends(end: str) -> None:
    gate = Gate(2)
    async with stage(enter=gate.enter) as here:
        if end != "answered":
            here.engine.switch({"only": [str(TWO)], "hang": end == "given up", "fail_requests": 2 * (end == "failed")})
        here.consider(3)
        assert (gate.free, here.shadows.open, here.shadows.dropped) == (0, 2, 1)
        assert here.residency.leased == {TWO}
        if end == "given up":
            here.shadows.give_way()
        await until(lambda: here.nothing_is_left)
        assert gate.free == 2
    assert gate.asked == [("acme", str(TWO))] * 3


async def test_the_base_model_asks_for_a_place_without_an_adapter() -> None:
    gate = Gate(1)
    async with stage(mirrored(Shadow(None, 1.0)), loaded=False, enter=gate.enter) as here:
        here.consider()
        await here.recorded()
    assert gate.asked == [("acme", None)]


async def test_when_a_client_has_to_wait_all_that_is_open_gives_way_and_later_ones_may_come() -> None:
    async with stage() as here:
        here.engine.switch({"hang": True, "only": [str(TWO)]})
        here.consider(3)
        await until(lambda: here.engine.counts["in_flight"] == 3)
        here.shadows.give_way()
        await until(lambda: here.nothing_is_left)
        assert here.shadows.dropped == 3
        here.engine.switch({"hang": False})
        here.consider()
        await here.recorded()


@pytest.mark.parametrize("end", ["stop", "cancel"])
@pytest.mark.parametrize("begun", [False, True])
async def test_on_the_way_out_all_is_dropped_at_once_and_nothing_is_left(end: str, begun: bool) -> None:
    async with stage() as here:
        here.engine.switch({"hang": True, "only": [str(TWO)]})
        here.consider(3)
        if begun:
            await until(lambda: here.engine.counts["in_flight"] == 3)
        if end == "stop":
            here.shadows.stop()
        else:
            here.running.cancel()
        async with asyncio.timeout(1):
            await until(lambda: here.nothing_is_left)
        here.consider()
        assert (here.shadows.open, here.shadows.dropped, here.rows) == (0, 4, [])
        assert here.engine.counts["aborted"] == 3 or not begun
