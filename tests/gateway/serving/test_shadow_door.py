"""Shadow traffic through the door, on real sockets: whatever the candidate does, clients are none the wiser."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import openai
import pytest

from gateway.engine import fake
from gateway.engine.fake_engine import Options
from gateway.serving.shadow import MOST_IN_FLIGHT
from tests.gateway.serving.house import BASE_MODEL, HELLO, House, open_house, ref, until
from tests.gateway.serving.mirrored import ONE, TWO, mirrored

BODY = {"model": "tuned", "messages": HELLO}


async def ask(house: House, number: int = 1, *, stream: bool = False) -> list[str]:
    """What clients got: the status and the text of each answer."""
    client = house.client()
    if stream:
        return [await _streamed(client) for _ in range(number)]
    replies = await asyncio.gather(*(house.post(BODY) for _ in range(number)))
    assert {(reply.status_code, reply.headers["x-adapter"], reply.headers["x-variant"]) for reply in replies} == {
        (200, str(ONE), "tuned")
    }
    return [reply.json()["choices"][0]["message"]["content"] for reply in replies]


async def _streamed(client: openai.AsyncOpenAI) -> str:
    stream = await client.chat.completions.create(model="tuned", messages=HELLO, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def candidate_ready(house: House) -> None:
    await until(lambda: TWO in house.residency.resident)


async def test_what_clients_got_is_recorded_as_theirs_and_the_candidates_answers_apart() -> None:
    async with open_house(mirrored()) as house:
        await candidate_ready(house)
        texts = await ask(house, 3) + await ask(house, 2, stream=True)
        await until(lambda: len(house.records.rows) == 10)
        assert len(set(texts)) == 1 and str(ONE) in texts[0]
        own = {row.id: row for row in house.records.rows if row.shadow_of is None}
        copies = [row for row in house.records.rows if row.shadow_of is not None]
        assert {row.shadow_of for row in copies} == own.keys()
        for copy in copies:
            original = own[str(copy.shadow_of)]
            assert (original.served, copy.served) == (str(ONE), str(TWO))
            assert (copy.unit, copy.alias, copy.stream) == (original.unit, original.alias, False)
        page = house.telemetry.metrics_text().decode()
    (count,) = [line for line in page.splitlines() if line.startswith("gen_ai_server_request_duration_seconds_count")]
    assert count.endswith(" 5.0")
    assert "tuneloop_shadow_answered_total 5.0" in page
    assert len(house.spans.finished()) == 5


@pytest.mark.parametrize(
    "trouble",
    [
        {"hang": True},
        {"fail_requests": 10**6},
        {"cut_after_chunks": 1},
    ],
)
async def test_a_candidate_in_trouble_changes_nothing_for_clients(
    caplog: pytest.LogCaptureFixture, trouble: dict[str, Any]
) -> None:
    async with open_house(mirrored()) as house:
        await candidate_ready(house)
        before = await ask(house, 5) + await ask(house, 1, stream=True)
        await house.faults(only=[str(TWO)], **trouble)
        assert set(await ask(house, 40) + await ask(house, 10, stream=True)) == set(before)
        own = [row for row in house.records.rows if row.shadow_of is None]
        assert {(row.outcome, row.status) for row in own} == {("ok", 200)} and len(own) == 56
        if "hang" in trouble:
            assert house.shadows.open == MOST_IN_FLIGHT
            assert house.shadows.dropped >= 50 - MOST_IN_FLIGHT
        else:
            await until(lambda: house.shadows.failed > 0)
        assert house.residency.ready
    assert not [one for one in caplog.records if one.levelname in ("ERROR", "WARNING")]


async def test_a_candidate_the_engine_lost_is_dropped_until_it_is_back() -> None:
    async with open_house(mirrored()) as house:
        await candidate_ready(house)
        await house.faults(refuse=[str(TWO)], reboot=True)
        await until(lambda: house.residency.ready and TWO not in house.residency.resident)
        await ask(house, 5)
        assert (house.shadows.open, house.shadows.dropped) == (0, 5)


async def test_refused_and_abandoned_requests_are_not_mirrored() -> None:
    async with open_house(mirrored(), options=Options(base_model=BASE_MODEL, tokens=50, itl=0.02)) as house:
        await candidate_ready(house)
        assert (await house.post(BODY | {"temperature": "hot"})).status_code == 400
        stream = await house.client().chat.completions.create(model="tuned", messages=HELLO, stream=True)
        async for _ in stream:
            break
        await stream.close()
        await until(lambda: len(house.records.rows) == 1)
        assert house.records.rows[0].outcome == "disconnected"
        assert (house.shadows.open, house.shadows.dropped, house.shadows.answered) == (0, 0, 0)


async def test_nothing_is_left_at_the_engine_when_the_gateway_has_gone() -> None:
    async with fake.running(Options(base_model=BASE_MODEL, tokens=6)) as engine:
        async with open_house(mirrored(), engine_url=engine.url) as house:
            await candidate_ready(house)
            await house.faults(only=[str(TWO)], hang=True)
            await ask(house, 3)
            await until(lambda: engine.engine.counts["in_flight"] == 3)
        await until(lambda: engine.engine.counts["in_flight"] == 0, seconds=1)
        assert house.shadows.open == 0 and house.residency.leased == frozenset()


async def test_a_full_engine_takes_the_candidates_place_for_a_swap_in_the_midst_of_mirroring() -> None:
    three = ref("acme/support@3")
    async with open_house(mirrored(), options=Options(base_model=BASE_MODEL, tokens=6, max_cpu_loras=2)) as house:
        await candidate_ready(house)
        await house.faults(only=[str(TWO)], hang=True)
        await ask(house, 3)
        await until(lambda: house.shadows.open == 3)
        house.current.snapshot = replace(house.current.snapshot, version=2, preparing=frozenset((three,)))
        house.residency.wake()
        await until(lambda: house.residency.resident == {ONE, three})
        assert house.shadows.open == 0
        await ask(house, 3)
        assert house.shadows.dropped == 6
        house.residency.wake()
        await until(lambda: TWO in house.residency.failed)
        assert house.residency.ready and house.residency.resident == {ONE, three}


async def test_a_pinned_version_takes_the_candidates_place_too_and_the_candidate_no_ones() -> None:
    async with open_house(mirrored(), options=Options(base_model=BASE_MODEL, tokens=6, max_cpu_loras=2)) as house:
        await candidate_ready(house)
        with await house.residency.lease(ref("zeta/support@1")) as lease:
            assert house.residency.resident == {ONE, lease.ref}
            await house.residency.reconcile()
            await until(lambda: TWO in house.residency.failed)
        assert house.residency.ready
