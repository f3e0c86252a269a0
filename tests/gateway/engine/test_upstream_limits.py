"""The pool under pressure: slow readers, slow engines, timeouts, more requests than connections. Real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest

from gateway.engine.upstream import Upstream
from gateway.errors import EngineTimeout, Unavailable, UpstreamBroken
from gateway.settings import TimeoutSettings

from .scripted import get, scripted, take_request

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


async def test_nothing_is_retried_after_the_first_byte(sockets: Path) -> None:
    requests: list[int] = []

    async def script(number: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        requests.append(number)
        writer.write(OK)
        await take_request(reader)
        requests.append(number)
        writer.write(b"H")
        await writer.drain()

    async with scripted(sockets, script) as upstream:
        await get(upstream)
        with pytest.raises(UpstreamBroken):
            await get(upstream)
    assert requests == [0, 0]


async def test_a_slow_reader_stops_the_engine_within_bounded_memory(sockets: Path) -> None:
    sent = 0

    async def script(_: int, reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await take_request(reader)
        writer.write(STREAM)
        for _n in range(512):
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await writer.drain()
            sent += 65_536
        writer.write(b"0\r\n\r\n")

    async with scripted(sockets, script) as upstream:
        reply = await upstream.send(b"/x", ())
        before = -1
        while sent > before:  # until the engine's writes stand still
            before = sent
            await asyncio.sleep(0.1)
        assert reply.size <= 1024 * 1024
        assert sent <= 4 * 1024 * 1024
        got = 0
        while piece := await reply.chunk():
            got += len(piece)
        assert got == 512 * 65_536


async def test_a_large_request_reaches_a_slow_engine_whole(sockets: Path) -> None:
    body = bytes(range(256)) * 32_768  # 8 MiB
    received = b""

    async def script(_: int, reader: Reader, writer: Writer) -> None:
        nonlocal received
        await asyncio.sleep(0.1)
        _head, received = await take_request(reader)
        writer.write(OK)
        await reader.read()

    async with scripted(sockets, script) as upstream:
        reply = await upstream.send(b"/x", (), body)
        assert await reply.read() == b"ok"
    assert received == body


async def test_an_answer_before_the_request_was_taken_is_an_answer(sockets: Path) -> None:
    connections: list[int] = []
    done = asyncio.Event()

    async def script(number: int, reader: Reader, writer: Writer) -> None:
        connections.append(number)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await done.wait()  # it neither reads on nor closes

    async with scripted(sockets, script) as upstream:
        for _ in range(2):
            reply = await upstream.send(b"/x", (), b"x" * 8_000_000)
            assert (reply.status, await reply.read()) == (413, b"big")
        done.set()
    assert connections == [0, 1]  # half a request was on the first: nobody else may use it


async def test_silence_ends_in_a_timeout_wherever_it_begins(sockets: Path) -> None:
    async def script(number: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        writer.write([b"", STREAM, STREAM + b"2\r\nok\r\n"][number])
        await reader.read()

    timeouts = TimeoutSettings(connect=1, first_byte=0.4, idle=0.2, total=5)
    async with scripted(sockets, script, timeouts=timeouts) as upstream:
        started = time.monotonic()
        with pytest.raises(EngineTimeout):
            await upstream.send(b"/x", ())  # no head
        assert 0.3 < time.monotonic() - started < 0.8
        reply = await upstream.send(b"/x", ())
        with pytest.raises(EngineTimeout):
            await (
                reply.chunk()
            )  # a head, no body: the first byte is the body's, since vLLM sends heads before it queues
        assert 0.7 < time.monotonic() - started < 1.4
        reply = await upstream.send(b"/x", ())
        assert await reply.chunk() == b"ok"
        started = time.monotonic()
        with pytest.raises(EngineTimeout):
            await reply.chunk()
        assert 0.1 < time.monotonic() - started < 0.6


async def test_after_the_first_byte_silence_is_measured_by_the_idle_timeout(sockets: Path) -> None:
    async def script(_: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        writer.write(STREAM)
        await asyncio.sleep(0.3)
        writer.write(b"1\r\nx\r\n")
        await reader.read()

    async with scripted(sockets, script, timeouts=TimeoutSettings(first_byte=4, idle=0.2)) as upstream:
        started = time.monotonic()
        with pytest.raises(EngineTimeout, match="fell silent"):
            await get(upstream)
        assert 0.45 < time.monotonic() - started < 2


async def test_after_the_first_byte_its_timeout_is_over(sockets: Path) -> None:
    async def script(_: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        writer.write(STREAM)
        for _n in range(3):
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.2)
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with scripted(sockets, script, timeouts=TimeoutSettings(first_byte=0.3, idle=2)) as upstream:
        assert await get(upstream) == b"xxx"


async def test_a_trickle_ends_at_the_total_and_a_slow_client_is_not_the_engines_silence(sockets: Path) -> None:
    async def script(_: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        writer.write(STREAM)
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    timeouts = TimeoutSettings(connect=1, first_byte=1, idle=0.2, total=0.9)
    async with scripted(sockets, script, timeouts=timeouts) as upstream:
        started = time.monotonic()
        reply = await upstream.send(b"/x", ())
        await asyncio.sleep(0.5)
        assert len(await reply.chunk()) > 3
        with pytest.raises(EngineTimeout):
            while await reply.chunk():
                pass
        assert 0.8 < time.monotonic() - started < 1.4


async def test_an_engine_that_is_not_there_is_unavailable(sockets: Path) -> None:
    for url in (f"unix:{sockets}/nobody.sock", "http://127.0.0.1:1"):
        with pytest.raises(Unavailable):
            await Upstream(url, timeouts=TimeoutSettings(connect=1)).send(b"/x", ())


async def test_an_engine_that_does_not_accept_is_unavailable_in_time() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the one that the kernel takes in its stead
            upstream = Upstream(f"http://127.0.0.1:{port}", timeouts=TimeoutSettings(connect=0.3))
            began = asyncio.get_running_loop().time()
            for _ in range(2):
                with pytest.raises((EngineTimeout, Unavailable)):
                    await upstream.send(b"/x", (), seconds=0.3)
            assert asyncio.get_running_loop().time() - began < 1.5
            await upstream.aclose()


async def test_two_hundred_requests_share_a_small_pool(sockets: Path) -> None:
    connections: list[int] = []

    async def script(number: int, reader: Reader, writer: Writer) -> None:
        connections.append(number)
        while True:
            _head, body = await take_request(reader)
            await asyncio.sleep(0.002)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async def ask(upstream: Upstream, text: bytes) -> bytes:
        reply = await upstream.send(b"/x", (), text)
        return await reply.read()

    async with scripted(sockets, script):
        small = Upstream(f"unix:{sockets}/upstream.sock", timeouts=TimeoutSettings(), max_connections=16)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(small, b"%d" % n)) for n in range(200)]
        await small.aclose()
    assert [task.result() for task in tasks] == [b"%d" % n for n in range(200)]
    assert len(connections) == 16


async def test_a_full_pool_says_so_and_who_leaves_the_queue_passes_the_turn(sockets: Path) -> None:
    release = asyncio.Event()

    async def script(_: int, reader: Reader, writer: Writer) -> None:
        while True:
            await take_request(reader)
            await release.wait()
            writer.write(OK)

    async with scripted(sockets, script):
        one = Upstream(f"unix:{sockets}/upstream.sock", timeouts=TimeoutSettings(connect=0.3), max_connections=1)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(get(one))
            await asyncio.sleep(0.05)
            with pytest.raises(Unavailable):
                await get(one)
            leaver = group.create_task(get(one))
            stayer = group.create_task(get(one))
            await asyncio.sleep(0.05)
            release.set()
            leaver.cancel()
        assert (first.result(), stayer.result()) == (b"ok", b"ok")
        await one.aclose()
