"""Streams that take the lane, through the door: the client, the record and the engine see no difference."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain import Tenant
from gateway.engine.fake_engine import Options
from gateway.engine.lane import COMPILED
from gateway.serving.exchange import MOST_KEPT
from gateway.settings import TimeoutSettings
from tests.gateway.serving import raw
from tests.gateway.serving.house import BASE_MODEL, HELLO, alias, open_house, picture, until
from tests.gateway.serving.raw import Answer, Wires, body_of, knock, request_of, stands_still

pytestmark = pytest.mark.skipif(not COMPILED, reason="there was no C compiler")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\n'

KEEPING = picture(
    tenants=[Tenant("acme", store_content=True)], aliases=[alias("acme", "chat", ("base", 1, None))], adapters=[]
)
standing, wired = partial(raw.standing, snapshot=KEEPING), partial(raw.wired, snapshot=KEEPING)


def framed(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def event(text: str, reason: str | None = None, end: bytes = b"\n\n") -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return b"data: " + json.dumps({"id": "1", "choices": [choice]}, separators=(",", ":")).encode() + end


def rides() -> list[Any]:
    """Those under way in this process."""
    return [one for one in gc.get_objects() if type(one).__name__ == "Ride" and one.rider is not None]


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """What an engine writes, write by write: mostly one chunk of one event each, as they do, and sometimes not."""
    writes = [HEAD]
    words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["}]}\n\n", "[DONE]"])
    for text in draw(st.lists(words, min_size=3, max_size=15)):
        one = event(text)
        shape = draw(st.sampled_from(["usual"] * 6 + ["crlf", "two", "comment", "halves", "cut", "extended", "named"]))
        if shape == "usual":
            writes.append(framed(one))
        elif shape == "crlf":
            writes.append(framed(event(text, end=b"\r\n\r\n")))
        elif shape == "two":
            writes.append(framed(one) + framed(event("!")))
        elif shape == "comment":
            writes += [framed(b": still here\n\n"), framed(one)]
        elif shape == "halves":
            at = draw(st.integers(1, len(one) - 1))
            writes += [framed(one[:at]), framed(one[at:])]
        elif shape == "cut":
            at, whole = draw(st.integers(1, len(one))), framed(one)
            writes += [whole[:at], whole[at:]]
        elif shape == "extended":
            writes.append(b"%x;a=b\r\n%b\r\n" % (len(one), one))
        else:
            writes.append(framed(b"event: x\n" + one))
    end = draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))
    writes += [framed(event("", "stop", end)), framed(USAGE), framed(DONE) + b"0\r\n\r\n"]
    return writes


def says(wires: Wires, writes: list[bytes]) -> None:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for one in writes:
            writer.write(one)
            for _n in range(3):  # so that each is read by itself
                await asyncio.sleep(0)

    wires.engine.script = script


async def ask(wires: Wires) -> tuple[Answer, Any]:
    before = len(wires.house.records.rows)
    async with knock(wires.house) as client:
        client.send(request_of(body_of(stream=True)))
        answer = await client.answer()
    await until(lambda: len(wires.house.records.rows) > before)
    return answer, wires.house.records.rows[-1]


def test_a_stream_is_the_same_with_the_lane_and_without_it() -> None:
    with standing() as (fast, run_fast), standing(lane=False) as (plain, run_plain):

        @settings(deadline=None, suppress_health_check=list(HealthCheck))
        @given(writes=streams())
        def check(writes: list[bytes]) -> None:
            says(fast, writes)
            says(plain, writes)
            (answer, row), (expected, known) = run_fast(ask(fast)), run_plain(ask(plain))
            assert (answer.status, answer.body, answer.cut) == (200, expected.body, False)
            told = [
                (one.answer, one.finish_reason, one.input_tokens, one.output_tokens, one.outcome)
                for one in (row, known)
            ]
            assert told[0] == told[1] and told[0][1:] == ("stop", 3, 5, "ok")

        check()
    assert not rides()


@pytest.mark.parametrize(
    "more", [{}, {"logprobs": True, "top_logprobs": 2}, {"stream_options": {"include_usage": True}}]
)
async def test_what_vllm_writes_is_the_usual_chunk(more: dict[str, Any]) -> None:
    async with open_house(options=Options(base_model=BASE_MODEL, tokens=30, itl=0.02)) as house:
        stream = await house.client().chat.completions.create(model="tuned", messages=HELLO, stream=True, **more)  # type: ignore[call-overload]  # a dict of any fields
        most = 0
        async for _ in stream:
            most = max([most, *(one.pieces for one in rides())])
    assert most >= 20


@pytest.mark.long
@pytest.mark.parametrize("lane", [True, False])
async def test_the_engine_counts_as_silent_from_its_last_chunk_on(lane: bool) -> None:
    times = TimeoutSettings(connect=2, first_byte=3, idle=0.6)
    went: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in range(8):
            writer.write(framed(event("x")))
            await asyncio.sleep(0.15)
        writer.write(framed(event("x", "length")))
        await asyncio.sleep(0.1)
        went.append(len(rides()))
        await reader.read()

    async with wired(timeouts=times, lane=lane) as wires:
        wires.engine.script = script
        answer, row = await ask(wires)
    assert answer.body.startswith(event("x") * 8 + event("x", "length") + b'data: {"error"') and went == [lane]
    assert (row.outcome, row.answer, row.finish_reason) == ("timeout", "x" * 9, "length")


@pytest.mark.parametrize("how", ["ends", "aborts"])
async def test_an_engine_that_breaks_off_on_the_lane_is_an_error_event(how: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _ in range(5):
            writer.write(framed(event("x")))
            await asyncio.sleep(0.02)
        assert rides()
        if how == "ends":
            writer.write_eof()
            await asyncio.sleep(1)
        else:
            writer.transport.abort()

    async with wired() as wires:
        wires.engine.script = script
        answer, row = await ask(wires)
    assert answer.body.startswith(event("x") * 5 + b'data: {"error"') and not answer.cut
    assert (row.outcome, row.answer) == ("engine_error", "x" * 5) and not rides()


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_client_that_leaves_the_lane_ends_the_engines_work_and_leaves_nothing_open(how: str) -> None:
    given_up = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while not reader.at_eof() and reader.exception() is None:
            writer.write(framed(event("x")))
            await asyncio.sleep(0.01)
        given_up.set()

    async with wired() as wires:
        wires.engine.script = script
        before = len(os.listdir("/proc/self/fd"))
        async with knock(wires.house) as client:
            client.send(request_of(body_of(stream=True)))
            await until(rides)
            client.close() if how == "close" else client.abort()
            await asyncio.wait_for(given_up.wait(), 1)
        await until(lambda: wires.house.door.open == 0 and not rides())
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        assert wires.house.records.rows[-1].outcome == "disconnected"


@pytest.mark.long
async def test_a_slow_reader_gets_every_byte_and_holds_up_the_engine() -> None:
    sent, count = 0, 600
    chunk = framed(event("größe 🦙" * 900))

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD)
        for _n in range(count):
            writer.write(chunk)
            await writer.drain()
            sent += 1
        writer.write(framed(event("", "stop")) + framed(DONE) + b"0\r\n\r\n")

    async with wired() as wires, knock(wires.house, receive=4096) as client:
        wires.engine.script = script
        client.send(request_of(body_of(stream=True)))
        await stands_still(lambda: sent)
        assert sent < count  # it waits for the reader
        answer = await client.answer(seconds=20)
        await until(lambda: len(wires.house.records.rows) == 1)
    assert answer.body == event("größe 🦙" * 900) * count + event("", "stop") + DONE
    row = wires.house.records.rows[0]
    assert (row.outcome, row.finish_reason, row.answer) == ("ok", "stop", None)  # more than is kept of an answer
    assert len(answer.body) > MOST_KEPT


async def test_a_word_of_ours_between_two_chunks_stays_between_them() -> None:
    """A client that half closes is probed with a comment, while its stream is on the lane."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        for _n in range(40):
            writer.write(framed(event("x")))
            await asyncio.sleep(0.01)
        writer.write(framed(DONE) + b"0\r\n\r\n")

    async with wired() as wires, knock(wires.house) as client:
        wires.engine.script = script
        client.send(request_of(body_of(stream=True)))
        await until(rides)
        client.writer.write_eof()
        answer = await client.answer()
    assert answer.body.count(b":\n\n") == 1 and answer.body.replace(b":\n\n", b"") == event("x") * 40 + DONE
