"""The HTTP client against any slicing, any cut and any nonsense: real sockets, bytes chosen by Hypothesis."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.engine.reply import Reply
from gateway.errors import EngineFailed, UpstreamBroken

from .scripted import scripted, take_request

LOOPS: list[Callable[[], Any]] = [asyncio.new_event_loop, uvloop.new_event_loop]
both_loops = pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
examples = settings(
    max_examples=60 * settings().max_examples // 100, deadline=None, suppress_health_check=list(HealthCheck)
)


@dataclass(frozen=True)
class Wire:
    """A response as it travels. `framing` is "length", "chunked" or "end"; `head` counts its bytes up to the body."""

    raw: bytes
    body: bytes
    head: int
    framing: str


# What decides whether a chunk may pass the parser by: ends of events, of lines, of chunks, and what looks like a size.
EVENTS = st.lists(
    st.sampled_from([b"\n\n", b"\r\n", b"\n", b"\r", b"0\r\n\r\n", b"5\r\n", b"data: x\n\n", b"a", b"\n\n\r\n"]),
    max_size=40,
).map(b"".join)


@st.composite
def wires(draw: st.DrawFn) -> Wire:
    body = draw(st.binary(max_size=600) | EVENTS)
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    interim = draw(
        st.sampled_from([b"", b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
    )
    head = interim + b"HTTP/1.1 200 OK\r\nX-Test: yes\r\n"
    if framing == "length":
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        return Wire(head + body, body, len(head), framing)
    if framing == "end":
        return Wire(head + b"connection: close\r\n\r\n" + body, body, len(head) + 21, framing)
    head += b"transfer-encoding: chunked\r\n\r\n"
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if b > a]
    trailer = draw(st.sampled_from([b"", b"x-trailer: late\r\n"]))
    sizes = draw(st.sampled_from([b"%x\r\n%b\r\n", b"0%X\r\n%b\r\n", b"%x;a=b\r\n%b\r\n"]))
    chunks = b"".join(sizes % (len(piece), piece) for piece in pieces)
    return Wire(head + chunks + b"0\r\n" + trailer + b"\r\n", body, len(head), framing)


def sliced(raw: bytes, cuts: list[int]) -> list[bytes]:
    points = sorted({min(cut, len(raw)) for cut in cuts})
    return [raw[a:b] for a, b in zip([0, *points], [*points, len(raw)], strict=True) if b > a]


async def gather(reply: Reply) -> tuple[bytes, EngineFailed | None]:
    """The body as far as it came, and how it ended."""
    got = b""
    try:
        while piece := await reply.chunk():
            got += piece
    except EngineFailed as error:
        return got, error
    finally:
        reply.close()
    return got, None


def exchange(
    loop: Callable[[], Any], pieces: list[bytes], then: Callable[[Any], Coroutine[Any, Any, Any]], *, apart: float = 0
) -> Any:
    """Answer one request with `pieces`, each its own write, and close; what `then(upstream)` returns."""

    async def script(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take_request(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(apart)
        writer.write_eof()
        await reader.read()

    async def run() -> Any:
        with tempfile.TemporaryDirectory(prefix="tl-") as directory:
            async with scripted(Path(directory), script) as upstream:
                return await then(upstream)

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(run())


@both_loops
@examples
@given(wire=wires(), cuts=st.lists(st.integers(0, 900), max_size=12), whole=st.booleans())
def test_any_slicing_of_an_answer_gives_the_same_body(loop: Any, wire: Wire, cuts: list[int], whole: bool) -> None:
    async def ask(upstream: Any) -> tuple[int, list[Any], bytes]:
        reply = await upstream.send(b"/x", ())
        body = await reply.read() if whole else (await gather(reply))[0]
        assert reply.error is None
        return reply.status, [value for name, value in reply.headers if name == b"x-test"], body

    assert exchange(loop, sliced(wire.raw, cuts), ask) == (200, [b"yes"], wire.body)


@both_loops
@examples
@given(wire=wires(), data=st.data())
def test_any_cut_of_an_answer_is_an_error_after_what_came(loop: Any, wire: Wire, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(wire.raw) - 1))

    async def ask(upstream: Any) -> tuple[bytes, EngineFailed | None]:
        try:
            return await gather(await upstream.send(b"/x", ()))
        except EngineFailed as error:
            return b"", error

    got, error = exchange(loop, [wire.raw[:cut]] if cut else [], ask)
    assert wire.body.startswith(got)
    if wire.framing == "end" and cut >= wire.head:
        assert error is None  # HTTP gives such an answer no other end
        assert len(got) == cut - wire.head
    else:
        assert isinstance(error, UpstreamBroken)
        if wire.framing == "length":
            assert len(got) == max(0, cut - wire.head)


@both_loops
@examples
@given(
    wire=wires(),
    cuts=st.lists(st.integers(0, 900), max_size=12) | st.none(),
    says=st.lists(st.booleans()),
    data=st.data(),
)
def test_pouring_gives_what_reading_gives_however_often_the_sink_stops_it(
    loop: Any, wire: Wire, cuts: list[int] | None, says: list[bool], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(wire.head, len(wire.raw)))
    poured: list[bytes] = []
    answers = iter(says)

    def sink(piece: bytes, chunk: bytes | None) -> bool:
        assert piece
        assert chunk is None or chunk == b"%x\r\n%b\r\n" % (len(piece), piece)
        poured.append(piece)
        return next(answers, True)

    async def ask(upstream: Any) -> EngineFailed | None:
        reply = await upstream.send(b"/x", ())
        try:
            whole = False
            while not whole:
                whole = await reply.pour(sink)
                await asyncio.sleep(0)
        except EngineFailed as error:
            return error
        finally:
            reply.close()
        return None

    ends = [found.end() for found in re.finditer(rb"\n\r\n", wire.raw)]  # a piece for each event, as engines write
    error = exchange(loop, sliced(wire.raw[:cut], ends if cuts is None else cuts), ask)
    assert wire.body.startswith(got := b"".join(poured))
    if cut == len(wire.raw) or wire.framing == "end":
        assert error is None and len(got) == (len(wire.body) if cut == len(wire.raw) else cut - wire.head)
    else:
        assert isinstance(error, UpstreamBroken)


@pytest.mark.parametrize(
    "odd", [b"5\r\nhelloXX", b"5\r\nhello\r", b"+5\r\nhello\r\n", b"-1\r\n\r\n", b"5_\r\nhello\r\n"]
)
@both_loops
def test_only_what_is_exactly_a_chunk_is_passed_on_as_one(loop: Any, odd: bytes) -> None:
    event = b"9\r\ndata: 1\n\n\r\n"
    chunks: list[bytes | None] = []

    def sink(_: bytes, chunk: bytes | None) -> bool:
        chunks.append(chunk)
        return True

    async def ask(upstream: Any) -> None:
        reply = await upstream.send(b"/x", ())
        with pytest.raises(EngineFailed):
            await reply.pour(sink)

    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    exchange(loop, [head + event, event, event, event, odd], ask, apart=0.01)
    assert set(chunks) == {None, event}


@both_loops
@examples
@given(junk=st.binary(min_size=1, max_size=300), valid=st.booleans())
def test_nonsense_from_the_engine_is_always_one_of_our_errors(loop: Any, junk: bytes, valid: bool) -> None:
    raw = (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" if valid else b"") + b"\x00" + junk

    async def ask(upstream: Any) -> None:
        with pytest.raises(EngineFailed):
            await (await upstream.send(b"/x", ())).read()

    exchange(loop, [raw], ask)


@both_loops
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nokk",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    ],
    ids=["length and chunked", "two lengths", "an upgrade", "an endless header", "endless headers"],
)
def test_an_ambiguous_or_endless_head_is_refused(loop: Any, raw: bytes) -> None:
    async def ask(upstream: Any) -> None:
        with pytest.raises(EngineFailed):
            await (await upstream.send(b"/x", ())).read()

    exchange(loop, [raw[i : i + 16_384] for i in range(0, len(raw), 16_384)], ask)


_OK, _HINTS = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n"
KIN = [
    *(_OK + b"content-length: %d\r\n\r\n%b" % (size, b"x" * size) for size in (0, 1, 2, 12)),
    *(_OK + b"x: y\r\nContent-Length: %d\r\n\r\n%b" % (size, b"y" * size) for size in (0, 3)),
    _HINTS + b"content-length: 0\r\n\r\n" + _OK + b"content-length: 2\r\n\r\nzz",
    _HINTS + b"\r\n" + _OK + b"x: y\r\ncontent-length: 2\r\n\r\nzz",
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    _OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok",
    _OK + b"content-length: 2\r\nContent-Length: 1\r\n\r\nok",
    _OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _OK + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok",
    _OK + b"content-length: +2\r\n\r\nok",
    _OK + b"content-length: 002\r\n\r\nok",
]
"""Answers of which one may be taken for another: their heads differ in the length's line, or in little else."""


@pytest.mark.long
@both_loops
@examples
@given(answers=st.lists(st.sampled_from(KIN), min_size=1, max_size=8))
def test_an_answer_means_the_same_whole_and_byte_by_byte_whatever_came_before_it(
    loop: Any, answers: list[bytes]
) -> None:
    def told(pattern: bytes) -> list[Any]:
        left = iter(answers)

        async def script(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await take_request(reader)
                raw = next(left)
                for piece in re.findall(pattern, raw, re.DOTALL):
                    if not writer.is_closing():
                        writer.write(piece)
                    await asyncio.sleep(0.001 if len(piece) > 1 else 0)

        async def run() -> list[Any]:
            got: list[Any] = []
            with tempfile.TemporaryDirectory(prefix="tl-") as directory:
                async with scripted(Path(directory), script) as upstream:
                    for _ in answers:
                        try:
                            reply = await upstream.send(b"/x", ())
                            own = [header for header in reply.headers if header[0] != b"content-length"]
                            got.append((reply.status, own, await reply.read()))
                        except EngineFailed as error:
                            got.append(type(error))
            return got

        with asyncio.Runner(loop_factory=loop) as runner:
            return list(runner.run(run()))

    by_byte = told(rb".")
    assert told(rb".+") == by_byte  # each in one piece
    assert told(rb".+?\r\n\r\n|.+") == by_byte  # each head for itself
