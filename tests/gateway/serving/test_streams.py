"""Streams and what goes wrong with them: clients that leave, engines that die, bytes cut anywhere."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import openai
import pytest

from gateway.engine.fake_engine import Options
from tests.gateway.serving.house import ACME, BASE_MODEL, HELLO, House, alias, open_house, picture, until

SLOW = Options(base_model=BASE_MODEL, tokens=400, itl=0.02)
HEADERS = {"authorization": f"Bearer {ACME}"}


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "tuned", "messages": HELLO, "stream": True, **more}


async def text_of(house: House, **more: Any) -> str:
    return (await house.post(asked(**more))).text


def without_names(stream: str) -> str:
    """A stream less what differs from one answer to the next."""
    events = [line.removeprefix("data: ") for line in stream.split("\n\n") if line and "[DONE]" not in line]
    told = [json.loads(event) for event in events]
    return json.dumps([{k: v for k, v in event.items() if k not in ("id", "created")} for event in told])


@asynccontextmanager
async def engine_process(*arguments: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The fake engine as a process of its own, to be killed."""
    command = [sys.executable, "-m", "gateway.engine.fake", "--port", "0", "--base-model", BASE_MODEL, *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip(), process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
async def test_a_stream_is_the_same_however_its_bytes_are_cut(house: House, size: int) -> None:
    said = [{"role": "user", "content": 'größe 🦙 \' \\ [DONE] "choices":[]'}]
    whole = await text_of(house, messages=said, logprobs=True, top_logprobs=2)
    await house.faults(slice_bytes=size)
    cut = await text_of(house, messages=said, logprobs=True, top_logprobs=2)
    assert without_names(cut) == without_names(whole) and cut.endswith("data: [DONE]\n\n")
    await until(lambda: [row.output_tokens for row in house.records.rows] == [6, 6])


async def test_a_client_that_leaves_mid_stream_frees_the_engine_within_a_second() -> None:
    async with open_house(options=SLOW) as house:
        async with house.http.stream(
            "POST", house.url + "/v1/chat/completions", json=asked(), headers=HEADERS
        ) as answer:
            async for _ in answer.aiter_bytes():
                break
        await until(lambda: aborted(house, 1), seconds=1)
        await until(lambda: house.door.open == 0 and not house.residency.leased)
    row = house.records.rows[-1]
    assert (row.outcome, row.status, row.served) == ("disconnected", 200, "acme/support@1")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_before_the_first_token_frees_the_engine_within_a_second(stream: bool) -> None:
    async with open_house() as house:
        await house.faults(ttft=30)
        with pytest.raises(httpx.ReadTimeout):
            await house.http.post(
                house.url + "/v1/chat/completions", json=asked() | {"stream": stream}, headers=HEADERS, timeout=0.4
            )
        await until(lambda: aborted(house, 1), seconds=1)
        await until(lambda: house.door.open == 0 and not house.residency.leased)
    assert (house.records.rows[-1].outcome, house.records.rows[-1].status) == ("disconnected", 499)


async def test_a_client_that_leaves_the_engines_queue_is_taken_out_of_it() -> None:
    options = Options(base_model=BASE_MODEL, slots=1, tokens=400, itl=0.02)
    async with open_house(options=options) as house:
        url = house.url + "/v1/chat/completions"
        async with house.http.stream("POST", url, json=asked(), headers=HEADERS) as running:
            pieces = running.aiter_bytes()
            await anext(pieces)
            with pytest.raises(httpx.ReadTimeout):
                await house.http.post(url, json=asked(), headers=HEADERS, timeout=0.4)
            await until(lambda: waits(house, 0), seconds=1)
            assert (await house.engine())["running"] == 1


async def test_an_engine_that_dies_mid_stream_ends_it_with_an_error_and_without_done() -> None:
    async with (
        engine_process("--tokens", "50", "--itl", "0.05") as (url, process),
        open_house(engine_url=url) as house,
    ):
        stream = await house.client().chat.completions.create(model="tuned", messages=HELLO, stream=True)
        said = []
        with pytest.raises(openai.APIError) as broken:
            async for piece in stream:
                said.append(piece)
                if len(said) == 3:
                    process.kill()
        assert "data:" not in broken.value.message and len(said) >= 3
        row = house.records.rows[-1]
        assert (row.outcome, row.status) == ("engine_error", 200)
        await until(lambda: not house.residency.ready)
        refused = await house.post(asked())
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) > 0


async def test_a_stream_that_the_engine_cuts_is_not_passed_off_as_whole(house: House) -> None:
    for fault in ({"cut_after_chunks": 3}, {"error_after_chunks": 3}, {"stall_after_chunks": 3}):
        await house.faults(**fault)
        text = await text_of(house)
        events = [json.loads(one.removeprefix("data: ")) for one in text.strip().split("\n\n")]
        assert "error" in events[-1] and "[DONE]" not in text, fault
        assert all("choices" in event for event in events[:-1])
        assert house.records.rows[-1].outcome in ("engine_error", "timeout")
        await house.faults(**dict.fromkeys(fault, None))
    assert "[DONE]" in await text_of(house)


@pytest.mark.long
async def test_an_engine_that_breaks_before_the_first_byte_is_an_http_error(house: House) -> None:
    await house.faults(cut_after_chunks=0)
    assert (await house.post(asked())).status_code == 502
    await house.faults(cut_after_chunks=None, fail_requests=1)
    assert (await house.post(asked())).status_code == 502
    await house.faults(hang=True, only=["acme/support@1"])
    late = await house.post(asked(), key=ACME)
    assert late.status_code == 504 and late.json()["error"]["code"] == "engine_timeout"


async def test_streams_finish_on_the_weights_they_began_with_while_a_swap_goes_by() -> None:
    options = Options(base_model=BASE_MODEL, tokens=40, itl=0.02)
    async with open_house(options=options, grace=0.1) as house:
        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(house.client().chat.completions.create(**asked())) for _ in range(20)]  # type: ignore[call-overload]  # a dict of any fields
        before = asyncio.gather(*(read(task.result()) for task in streams))
        house.current.snapshot = picture(version=2, preparing=frozenset(picture().adapters))
        await until(lambda: len(house.residency.resident) == 4)
        moved = alias("acme", "tuned", ("tuned", 1, "acme/support@2"), revision=2)
        house.current.snapshot = picture(version=3, aliases=[moved])
        house.residency.wake()
        after = await read(await house.client().chat.completions.create(**asked()))
        for text in await before:
            assert text.split()[0] == "acme/support@1" and len(set(text.split()[2:])) == 1
        assert after.split()[0] == "acme/support@2"
        await until(lambda: {str(ref) for ref in house.residency.resident} == {"acme/support@2"}, seconds=8)
        assert all(row.outcome == "ok" for row in house.records.rows)


async def test_an_engine_that_comes_back_empty_serves_no_wrong_weights(house: House) -> None:
    boot = house.residency.boot
    await house.faults(reboot=True)
    # At once: the engine says 404 for an adapter we took for resident; it is loaded again, and only then answers.
    told = await asyncio.gather(*(house.post(asked() | {"stream": False}) for _ in range(10)))
    for answer in told:
        assert answer.status_code in (200, 503)
        if answer.status_code == 200:
            assert answer.json()["choices"][0]["message"]["content"].startswith("acme/support@1 ")
    await until(lambda: house.residency.ready and house.residency.boot != boot)
    answer = await house.client().chat.completions.create(model="tuned", messages=HELLO)
    assert str(answer.choices[0].message.content).startswith("acme/support@1 ")


async def test_a_draining_door_lets_streams_end_and_takes_no_more() -> None:
    async with open_house(options=Options(base_model=BASE_MODEL, tokens=20, itl=0.02)) as house:
        stream = await house.client().chat.completions.create(**asked())
        house.door.draining = True
        refused = await house.post(asked())
        assert refused.status_code == 503 and refused.headers["connection"] == "close"
        assert len((await read(stream)).split()) == 20


@pytest.mark.long
async def test_a_client_that_stops_reading_is_let_go() -> None:
    options = Options(base_model=BASE_MODEL, tokens=4000, max_model_len=100_000)
    async with open_house(options=options) as house:
        host, port = house.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = json.dumps(asked(max_tokens=4000, n=8, logprobs=True, top_logprobs=20)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ACME}\r\n"
        writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert b"200" in await reader.readline()
        await until(lambda: house.door.open == 0, seconds=15)
        writer.close()
    assert house.records.rows[-1].outcome == "disconnected"


async def test_a_client_that_leaves_within_its_own_body_costs_nothing(house: House) -> None:
    host, port = house.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ACME}\r\ncontent-length: 99\r\n\r\n{{"
    )
    writer.write(head.encode())
    await until(lambda: len(house.door.fronts) == 1)
    writer.close()
    await until(lambda: not house.door.fronts)
    assert not house.records.rows and house.door.open == 0


async def test_a_body_that_never_ends_is_given_up() -> None:
    async with open_house(body_seconds=0.5) as house:
        host, port = house.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ACME}\r\n"
        writer.write(f"{head}content-length: 99\r\n\r\n".encode())
        for _ in range(3):
            writer.write(b" ")
            await asyncio.sleep(0.1)
        told = await asyncio.wait_for(reader.read(), 3)
        assert told.startswith(b"HTTP/1.1 408") and b"request_timeout" in told and b"connection: close" in told
        writer.close()


async def read(stream: Any) -> str:
    return "".join([piece.choices[0].delta.content or "" async for piece in stream if piece.choices])


async def aborted(house: House, count: int) -> bool:
    state = await house.engine()
    return bool(state["aborted"] == count and state["in_flight"] == 0)


async def waits(house: House, count: int) -> bool:
    return bool((await house.engine())["waiting"] == count)
