"""The engine's bytes through the door: any slicing gives the client the same, any cut a visible error. Raw sockets."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.serving.house import until
from tests.gateway.serving.raw import Answer, Wires, body_of, knock, request_of, standing, stands_still, wired

examples = settings(deadline=None, suppress_health_check=list(HealthCheck))
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
DONE = b"data: [DONE]"


@dataclass(frozen=True)
class Told:
    """An engine's answer as it travels: its head, its body in frames, and what of the body the client should get.

    `passes` pairs how many bytes of the body make an event complete with what has then passed.
    """

    head: bytes
    frames: tuple[bytes, ...]
    body: bytes
    passes: tuple[tuple[int, bytes], ...]
    chunked: bool

    @property
    def raw(self) -> bytes:
        return self.head + b"".join(self.frames)

    def carried(self, cut: int) -> int:
        """How many bytes of the body are in the first `cut` bytes."""
        left, got = cut - len(self.head), 0
        for frame in self.frames:
            if not self.chunked:
                return max(0, left)
            size, _, _ = frame.partition(b"\r\n")
            got += max(0, min(int(size, 16), left - len(size) - 2))
            left -= len(frame)
        return got

    def passed(self, cut: int) -> bytes:
        """What the client gets of the first `cut` bytes."""
        return next((out for length, out in reversed(self.passes) if length <= self.carried(cut)), b"")


def event(text: str, end: bytes) -> bytes:
    told = {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + end


@st.composite
def streams(draw: st.DrawFn) -> Told:
    ends = st.sampled_from([b"\n\n", b"\r\n\r\n"])
    words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
        ['"choices":[]', "data: [DONE]\n\n", "\n\n", '{"error"', "}]}\n\n", "größe 🦙"]
    )
    events = [(event(text, draw(ends)), True) for text in draw(st.lists(words, max_size=6))]
    if draw(st.booleans()):
        events.insert(draw(st.integers(0, len(events))), (b": a comment" + draw(ends), True))
    if draw(st.booleans()):
        events.append((b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":1}}' + draw(ends), False))
    events.append((DONE + draw(ends), True))
    body, passes, out = b"", [], b""
    for one, goes_on in events:
        body, out = body + one, out + one * goes_on
        passes.append((len(body), out))
    framing = draw(st.sampled_from(["chunked", "chunked", "length", "end"]))
    if framing == "chunked":
        cuts = sorted(draw(st.sets(st.integers(1, len(body) - 1), max_size=6)))
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        frames = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
        return Told(STREAM + b"transfer-encoding: chunked\r\n\r\n", tuple(frames), body, tuple(passes), True)
    size = b"content-length: %d\r\n\r\n" % len(body) if framing == "length" else b"connection: close\r\n\r\n"
    return Told(STREAM + size, (body,), body, tuple(passes), False)


def cut_up(raw: bytes, cuts: list[int]) -> list[bytes]:
    points = sorted({min(cut, len(raw)) for cut in cuts})
    return [raw[a:b] for a, b in zip([0, *points], [*points, len(raw)], strict=True) if b > a]


def says(wires: Wires, pieces: list[bytes]) -> None:
    """The engine answers everything with these writes, and closes."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()

    wires.engine.script = script


async def ask(wires: Wires, **body: Any) -> Answer:
    async with knock(wires.house) as client:
        client.send(request_of(body_of(**body)))
        return await client.answer()


def test_any_slicing_of_a_stream_gives_the_same_bytes() -> None:
    with standing() as (wires, run):

        @examples
        @given(told=streams(), cuts=st.lists(st.integers(0, 1500), max_size=12))
        def check(told: Told, cuts: list[int]) -> None:
            says(wires, cut_up(told.raw, cuts))
            answer = run(ask(wires, stream=True))
            assert (answer.status, answer.body, answer.cut) == (200, told.passes[-1][1], False)

        check()


def test_any_cut_of_a_stream_is_a_502_before_the_first_event_and_an_error_event_after_it() -> None:
    with standing() as (wires, run):

        @examples
        @given(told=streams(), data=st.data())
        def check(told: Told, data: st.DataObject) -> None:
            cut = data.draw(st.integers(0, len(told.raw) - 1))
            says(wires, [told.raw[:cut]] if cut else [])
            answer, passed = run(ask(wires, stream=True)), told.passed(cut)
            assert not answer.cut
            if not passed:
                assert answer.status == 502 and answer.error["code"] == "engine_failed"
            elif told.carried(cut) == len(told.body):
                assert (answer.status, answer.body) == (200, passed)  # [DONE] was said: the framing after it is nothing
            else:
                assert answer.status == 200 and answer.body.startswith(passed + b'data: {"error"')
                assert DONE not in answer.body.removeprefix(passed)
                assert json.loads(answer.body.removeprefix(passed + b"data: "))["error"]["code"] == "engine_failed"

        check()


@st.composite
def unary(draw: st.DrawFn) -> tuple[bytes, bytes, int]:
    """(raw, body, length of the head)."""
    text = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
    body = json.dumps(
        {"id": "1", "choices": [{"message": {"content": text}}]}, ensure_ascii=draw(st.booleans())
    ).encode()
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    if framing == "chunked":
        return (
            head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            body,
            len(head) + 30,
        )
    head += b"content-length: %d\r\n\r\n" % len(body) if framing == "length" else b"connection: close\r\n\r\n"
    return head + body, body, len(head)


def test_any_slicing_of_a_whole_answer_gives_the_same_bytes_and_any_cut_is_a_502() -> None:
    with standing() as (wires, run):

        @examples
        @given(told=unary(), cuts=st.lists(st.integers(0, 500), max_size=8), data=st.data())
        def check(told: tuple[bytes, bytes, int], cuts: list[int], data: st.DataObject) -> None:
            raw, body, _ = told
            says(wires, cut_up(raw, cuts))
            answer = run(ask(wires))
            assert (answer.status, answer.body, answer.cut) == (200, body, False)
            says(wires, [raw[: data.draw(st.integers(1, len(raw) - 1))]])
            answer = run(ask(wires))
            assert answer.status == 502 and answer.error["code"] == "engine_failed"

        check()


async def test_a_slow_reader_stops_the_engine_within_bounded_memory() -> None:
    sent = 0

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(STREAM + b"transfer-encoding: chunked\r\n\r\n")
        piece = event("x" * 16_000, b"\n\n")
        for _n in range(2000):  # 32 MB
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            sent += len(piece)

    async with wired() as wires, knock(wires.house, receive=4096) as client:
        wires.engine.script = script
        client.send(request_of(body_of(stream=True)))
        before = await stands_still(lambda: sent)
        held = sum(front.transport.get_write_buffer_size() for front in wires.house.door.fronts)
        assert held < 512 * 1024
        assert sent < 8 * 1024 * 1024  # most of it in the kernel's buffers
        for _n in range(200):
            await client.reader.readexactly(16_000)
        assert sent > before


LEAVES: dict[str, Any] = {
    "in the queue": (True, b""),
    "in the prefill": (True, STREAM + b"transfer-encoding: chunked\r\n\r\n"),
    "in mid-stream": (True, STREAM + b"transfer-encoding: chunked\r\n\r\n1a\r\n" + event("", b"\n\n")[:26] + b"\r\n"),
    "waiting for a whole answer": (False, b""),
    "within a whole answer": (False, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
}


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize(("stream", "begun"), LEAVES.values(), ids=LEAVES)
async def test_a_client_that_leaves_aborts_the_engines_work_within_a_second(
    how: str, stream: bool, begun: bytes
) -> None:
    taken, given_up = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        taken.set()
        await reader.read()
        given_up.set()

    async with wired() as wires, knock(wires.house) as client:
        wires.engine.script = script
        client.send(request_of(body_of(stream=stream)))
        await asyncio.wait_for(taken.wait(), 2)
        await asyncio.sleep(0.05)
        client.close() if how == "close" else client.abort()
        await asyncio.wait_for(given_up.wait(), 1)
        await until(lambda: wires.house.door.open == 0)
        assert wires.house.records.rows[-1].outcome == "disconnected"
