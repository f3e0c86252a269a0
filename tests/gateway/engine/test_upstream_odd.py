"""The pool against an engine that does odd things: what comes of it, and that nobody meets the leftovers."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

import h11
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.engine.connection import Connection
from gateway.engine.reply import Reply
from gateway.engine.upstream import Upstream
from gateway.errors import EngineFailed, GatewayError, UpstreamBroken
from gateway.settings import TimeoutSettings

from .scripted import get, scripted, take_request
from .test_upstream_bytes import Wire, exchange, gather, wires

H = b"HTTP/1.1 200 OK\r\n"
OK = H + b"content-length: 2\r\n\r\nok"
CHUNKED = H + b"transfer-encoding: chunked\r\n\r\n"
QUICK = TimeoutSettings(connect=1, first_byte=1, idle=1, total=4)
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter

WELL: dict[str, bytes] = {
    "early hints": b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" + OK,
    "five interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 5 + OK,
    "empty lines before it": b"\r\n\r\n" + OK,
    "chunk extensions": CHUNKED + b"2;a=b\r\nok\r\n0;c\r\n\r\n",
    "trailers": CHUNKED + b"2\r\nok\r\n0\r\nx: y\r\n\r\n",
    "an offer to upgrade": H + b"upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nok",
}
"""Answers that leave their connection fit for the next request."""

LAST: dict[str, bytes] = {
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "connection: close": H + b"connection: close\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
}
"""Answers after which the connection must not be used again."""

ILL: dict[str, bytes] = {
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n" + OK,
    "an upgrade without a name": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK,
    "an interim answer with a body": b"HTTP/1.1 103 Early\r\ncontent-length: 5\r\n\r\nhello" + OK,
    "an interim answer with chunks": b"HTTP/1.1 103 Early\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
    + OK,
    "status 000": b"HTTP/1.1 000 X\r\ncontent-length: 2\r\n\r\nok",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "a folded header": H + b"x: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
    "a NUL in a header": H + b"x: a\0b\r\ncontent-length: 2\r\n\r\nok",
    "a CR in a header": H + b"x: a\rb\r\ncontent-length: 2\r\n\r\nok",
    "a space before the colon": H + b"content-length : 2\r\n\r\nok",
    "length +2": H + b"content-length: +2\r\n\r\nok",
    "length -2": H + b"content-length: -2\r\n\r\nok",
    "length 2, 2": H + b"content-length: 2, 2\r\n\r\nok",
    "a length beyond all bounds": H + b"content-length: 99999999999999999999\r\n\r\nok",
    "length and chunked": H + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a chunk size in letters": CHUNKED + b"zz\r\nok\r\n0\r\n\r\n",
    "a chunk size with a space": CHUNKED + b"2 \r\nok\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"2\r\nokk\r\n0\r\n\r\n",
    "a chunk beyond all bounds": CHUNKED + b"fffffffffffffffff\r\nok\r\n0\r\n\r\n",
    "chunks by line feeds": CHUNKED + b"2\nok\n0\n\n",
    "a length among the trailers": CHUNKED + b"2\r\nok\r\n0\r\ncontent-length: 9\r\n\r\n",
    "TLS": bytes.fromhex("15030100020216"),
    "a request": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "another protocol": b"ICY 200 OK\r\ncontent-length: 2\r\n\r\nok",
}
"""What is no answer of an engine."""


async def twice(sockets: Path, raw: bytes, step: int) -> tuple[list[Any], list[int]]:
    """Ask twice, each time answered with `raw` in writes of `step` bytes; what came, and the connections used."""
    connections: list[int] = []
    quarrels: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: quarrels.append(context))

    async def script(number: int, reader: Reader, writer: Writer) -> None:
        while True:
            await take_request(reader)
            connections.append(number)
            for start in range(0, len(raw), step):
                if writer.is_closing():
                    return
                writer.write(raw[start : start + step])
                await asyncio.sleep(0)

    async with scripted(sockets, script, timeouts=QUICK) as upstream:
        told: list[Any] = []
        for _ in range(2):
            try:
                told.append(await get(upstream))
            except EngineFailed as error:
                told.append(type(error))
    assert not quarrels
    return told, connections


@pytest.mark.parametrize("step", [1 << 20, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("raw", WELL.values(), ids=WELL)
async def test_unusual_but_right_answers_leave_the_connection_fit(sockets: Path, raw: bytes, step: int) -> None:
    assert await twice(sockets, raw, step) == ([b"ok", b"ok"], [0, 0])


@pytest.mark.parametrize("step", [1 << 20, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("raw", LAST.values(), ids=LAST)
async def test_a_connection_that_ends_with_its_answer_is_not_used_again(sockets: Path, raw: bytes, step: int) -> None:
    assert await twice(sockets, raw, step) == ([b"ok", b"ok"], [0, 1])


@pytest.mark.parametrize("step", [1 << 20, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("raw", ILL.values(), ids=ILL)
async def test_what_is_no_answer_is_an_error_and_the_end_of_its_connection(
    sockets: Path, raw: bytes, step: int
) -> None:
    told, connections = await twice(sockets, raw, step)
    assert all(one in (EngineFailed, UpstreamBroken) for one in told) and connections == [0, 1]


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_a_body_where_none_may_be_is_nobodys_answer(sockets: Path, status: bytes) -> None:
    raw = b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nok"
    for step in (1 << 20, 1):
        assert await twice(sockets, raw, step) == ([b"", b""], [0, 1])
        (sockets / "upstream.sock").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("begin", "more"),
    [(b"2;a=", b"x" * 65_536), (b"0\r\nx: ", b"x" * 65_536), (b"0\r\n", b"a: b\r\n" * 10_000)],
    ids=["an extension", "a trailer", "many trailers"],
)
async def test_framing_without_end_is_cut_off(sockets: Path, begin: bytes, more: bytes) -> None:
    sent = 0

    async def script(_: int, reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await take_request(reader)
        writer.write(CHUNKED + b"2\r\nok\r\n" + begin)
        for _n in range(1000):
            writer.write(more)
            await writer.drain()
            sent += len(more)

    async with scripted(sockets, script, timeouts=QUICK) as upstream:
        got, error = await gather(await upstream.send(b"/x", ()))
    assert got == b"ok" and isinstance(error, UpstreamBroken) and "endless" in error.message
    assert sent < 4 * 1024 * 1024


async def test_bytes_that_carry_no_body_do_not_hide_a_silence(sockets: Path) -> None:
    async def script(_: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        writer.write(CHUNKED + b"2\r\nok\r\n2;")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.05)

    async with scripted(sockets, script, timeouts=TimeoutSettings(first_byte=1, idle=0.3, total=4)) as upstream:
        began = asyncio.get_running_loop().time()
        with pytest.raises(GatewayError, match="fell silent"):
            await get(upstream)
        assert asyncio.get_running_loop().time() - began < 1.5


async def test_after_an_early_answer_no_connection_with_an_unsent_rest_waits_for_its_next_user(sockets: Path) -> None:
    done = asyncio.Event()

    async def script(_: int, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await done.wait()  # it does not read on

    async with scripted(sockets, script, timeouts=QUICK) as upstream:
        for size in range(200_000, 600_000, 20_000):  # the kernel takes all of some, the transport the end of others
            reply = await upstream.send(b"/x", (), b"x" * size)
            assert (reply.status, await reply.read()) == (413, b"big")
            if (connection := upstream._pop()) is not None:
                assert connection._transport.get_write_buffer_size() == 0
                connection.drop()
        done.set()


async def test_an_early_answer_is_read_even_if_the_engine_then_slams_the_door(sockets: Path) -> None:
    async def script(_: int, reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig")

    async with scripted(sockets, script, timeouts=QUICK) as upstream:
        for size in (60_000, 300_000, 8_000_000):
            reply = await upstream.send(b"/x", (), b"x" * size)
            assert (reply.status, await reply.read()) == (413, b"big")


@st.composite
def damaged(draw: st.DrawFn) -> Wire:
    """A response with some of its bytes deleted, doubled, replaced or followed by others."""
    wire = draw(wires())
    raw = bytearray(wire.raw)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        until = min(len(raw), at + draw(st.integers(0, 6)))
        told = [st.just(b""), st.just(bytes(raw[at:until]) * 2), st.binary(max_size=4)]
        told.append(st.sampled_from([b"\r\n", b"\n", b"\0", b"0\r\n\r\n", b"content-length: 1\r\n", b"HTTP/1.1 "]))
        raw[at:until] = draw(st.one_of(told))
    return Wire(bytes(raw), wire.body, wire.head, wire.framing)


def as_h11_reads(raw: bytes) -> tuple[int, bytes] | None:
    """(status, body) of a response followed by the connection's end; None where h11 refuses it."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="POST", target="/x", headers=[("host", "engine"), ("content-length", "0")]))
    reader.send(h11.EndOfMessage())
    status, body = 0, b""
    try:
        reader.receive_data(raw)
        reader.receive_data(b"")
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.ConnectionClosed) or event in (h11.NEED_DATA, h11.PAUSED):
                return None
    except h11.RemoteProtocolError:
        return None
    return status, body


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(wire=damaged(), cut=st.integers(0, 900))
def test_a_damaged_answer_is_read_as_another_reader_reads_it_or_refused(wire: Wire, cut: int) -> None:
    async def ask(upstream: Upstream) -> tuple[int, bytes] | None:
        try:
            reply: Reply = await upstream.send(b"/x", ())
            return reply.status, await reply.read()
        except EngineFailed:
            return None

    ours = exchange(uvloop.new_event_loop, [piece for piece in (wire.raw[:cut], wire.raw[cut:]) if piece], ask)
    theirs = as_h11_reads(wire.raw)
    assert ours is None or theirs is None or ours == theirs


async def test_nothing_is_left_of_a_hundred_exchanges_that_ended_in_every_way(sockets: Path) -> None:
    async def script(number: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        raw = list((ILL | LAST | WELL).values())[number % 33]
        if number % 5 == 4:
            await reader.read()  # it never answers
        writer.write(raw[: len(raw) // 2] if number % 5 == 3 else raw)
        await writer.drain()
        await asyncio.sleep(0.01)

    async def ask(upstream: Upstream, number: int) -> None:
        try:
            async with asyncio.timeout(0.05 + number % 7 / 50):
                await get(upstream)
        except (TimeoutError, GatewayError):
            pass

    async with scripted(sockets, script, timeouts=QUICK) as upstream:
        await ask(upstream, 6)
        before = set(os.listdir("/proc/self/fd"))
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(ask(upstream, number))
        await upstream.aclose()
        await asyncio.sleep(0.1)
        assert not set(os.listdir("/proc/self/fd")) - before
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) in (Connection, Reply)]


@pytest.mark.long
async def test_a_closed_connection_is_free_memory_without_the_collector(sockets: Path) -> None:
    async def script(_: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        writer.write(OK)

    gc.collect()
    gc.disable()
    try:
        async with scripted(sockets, script) as upstream:
            for _ in range(3):
                assert await get(upstream) == b"ok"
                await asyncio.sleep(0.02)  # the engine has closed
                assert not [one for one in gc.get_objects() if type(one) in (Connection, Reply)]
    finally:
        gc.enable()
