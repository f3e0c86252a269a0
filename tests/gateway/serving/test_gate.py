"""Limits, the queue and deadlines as a client meets them at the door."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from gateway.domain import Limits, Tenant
from gateway.engine.fake_engine import Options
from tests.gateway.serving.house import ACME, BASE_MODEL, HELLO, ZETA, House, open_house, picture, until
from tests.gateway.serving.raw import body_of, knock, request_of, wired

ASK: dict[str, Any] = {"model": "tuned", "messages": HELLO}


def limited(**limits: int) -> Any:
    return picture(tenants=[Tenant("acme", limits=Limits(**limits)), Tenant("zeta")])


async def test_a_limit_is_told_with_each_answer_and_held_in_openais_way() -> None:
    async with open_house(limited(requests_per_minute=2, tokens_per_minute=10_000)) as house:
        first = await house.post(ASK)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert int(first.headers["x-ratelimit-remaining-tokens"]) < 10_000
        await house.post(ASK)
        with pytest.raises(openai.RateLimitError) as refused:
            await house.client().chat.completions.create(**ASK)
        assert refused.value.code == "rate_limit_exceeded" and int(refused.value.response.headers["retry-after"]) > 0
        assert (await house.post(ASK, key=ZETA)).status_code == 200, "another tenant notices nothing"
        assert house.records.rows[-2].outcome == "client_error", "a refusal is recorded"


async def test_what_the_engine_fails_is_not_charged() -> None:
    async with open_house(limited(requests_per_minute=1)) as house:
        await house.faults(fail_requests=1)
        assert (await house.post(ASK)).status_code == 502
        assert (await house.post(ASK)).status_code == 200
        assert (await house.post(ASK)).status_code == 429


async def test_a_client_that_leaves_before_the_first_byte_is_not_charged_and_gives_its_place_back() -> None:
    async with open_house(limited(requests_per_minute=1, concurrent_requests=1)) as house:
        await house.faults(ttft=30)
        with pytest.raises(httpx.ReadTimeout):
            await house.http.post(
                house.url + "/v1/chat/completions", json=ASK, headers={"authorization": f"Bearer {ACME}"}, timeout=0.3
            )
        await until(lambda: house.door.open == 0)
        await house.faults(ttft=0)
        assert (await house.post(ASK)).status_code == 200


async def test_the_tokens_of_an_answer_are_charged_and_no_more() -> None:
    async with open_house(limited(tokens_per_minute=10_000)) as house:
        before = await house.post({**ASK, "max_tokens": 3_000})
        row, after = house.records.rows[-1], await house.post({**ASK, "max_tokens": 1})
        assert int(before.headers["x-ratelimit-remaining-tokens"]) < 7_100, "reserved while it runs"
        left = int(after.headers["x-ratelimit-remaining-tokens"])
        assert row.input_tokens is not None and row.output_tokens is not None
        assert left > 10_000 - row.input_tokens - row.output_tokens - 100, "settled afterwards"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_ends_a_request_that_has_not_begun_with_a_504(house: House, stream: bool) -> None:
    await house.faults(ttft=30)
    began = time.monotonic()
    late = await house.post({**ASK, "stream": stream}, x_request_timeout_ms="300")
    assert late.status_code == 504 and late.json()["error"]["code"] == "deadline_exceeded"
    assert time.monotonic() - began < 5
    await until(lambda: house.door.open == 0 and not house.residency.leased)
    assert house.records.rows[-1].outcome == "timeout"


async def test_a_deadline_ends_a_stream_with_an_error_and_without_done() -> None:
    async with open_house(options=Options(base_model=BASE_MODEL, tokens=1000, itl=0.05)) as house:
        told = (await house.post({**ASK, "stream": True}, x_request_timeout_ms="500")).text
        assert "deadline_exceeded" in told and "[DONE]" not in told and told.count("data:") > 2
        assert (await house.post(ASK, x_request_timeout_ms="soon")).status_code == 400


async def test_a_deadline_that_comes_after_the_answer_touches_nothing() -> None:
    done = b"data: [DONE]\n\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(done), done))
        await asyncio.sleep(1.0)  # the end of the body is late
        writer.write(b"0\r\n\r\n")

    async with wired() as wires, knock(wires.house) as client:
        wires.engine.script = script
        client.send(request_of(body_of(stream=True), b"x-request-timeout-ms: 300"))
        assert (await client.answer()).body == done
        await until(lambda: wires.house.door.open == 0)
        client.send(request_of(body_of(stream=True)))
        assert (await client.answer()).body == done
        assert wires.house.records.rows[0].outcome == "ok"


@pytest.mark.long
async def test_who_waits_for_a_place_leaves_the_queue_with_its_client() -> None:
    options = Options(base_model=BASE_MODEL, slots=1, tokens=400, itl=0.02)
    async with open_house(options=options) as house, asyncio.TaskGroup() as group:
        house.admission.resize(capacity=1, slots=0)
        running = group.create_task(house.post({**ASK, "stream": True}, x_request_timeout_ms="2500"))
        await until(lambda: house.admission.running == 1)
        waiting = group.create_task(house.post(ASK, x_request_timeout_ms="60000"))
        await until(lambda: house.admission.waiting == 1)
        waiting.cancel()
        await until(lambda: house.admission.waiting == 0, seconds=1)
        late = await house.post(ASK, x_request_timeout_ms="200")
        assert late.status_code == 504 and (await house.engine())["in_flight"] == 1
        assert (await running).status_code == 200
        await until(lambda: house.admission.running == 0)


async def test_a_full_queue_is_told_with_the_time_to_come_back() -> None:
    async with open_house(options=Options(base_model=BASE_MODEL, tokens=400, itl=0.05)) as house:
        house.admission.resize(capacity=1, slots=0)
        url, headers = house.url + "/v1/chat/completions", {"authorization": f"Bearer {ACME}"}
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as crowd, asyncio.TaskGroup() as group:
            tasks = [group.create_task(crowd.post(url, json=ASK, headers=headers, timeout=60)) for _ in range(80)]
            done: set[asyncio.Task[httpx.Response]] = set()
            while len(done) < 15:
                done, _ = await asyncio.wait(tasks, timeout=0.05)
            refused = [task.result() for task in done]
            assert {one.status_code for one in refused} == {503}
            assert all(0 < int(one.headers["retry-after"]) <= 60 for one in refused)
            for task in tasks:
                task.cancel()
        await until(lambda: house.admission.running == house.admission.waiting == house.door.open == 0)


async def test_shown_limits_do_not_outlive_their_change(house: House) -> None:
    assert "x-ratelimit-limit-requests" not in (await house.post(ASK)).headers
    snapshot = house.current.snapshot
    tenants = {**snapshot.tenants, "acme": Tenant("acme", limits=Limits(requests_per_minute=5))}
    house.current.snapshot = replace(snapshot, tenants=tenants)
    assert (await house.post(ASK)).headers["x-ratelimit-limit-requests"] == "5"
    house.current.snapshot = snapshot
    assert "x-ratelimit-limit-requests" not in (await house.post(ASK)).headers
