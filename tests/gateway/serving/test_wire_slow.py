"""Clients that take their time: heads, bodies, silence and answers that nobody reads, each ended by a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.gateway.serving.house import until
from tests.gateway.serving.raw import Client, Wires, body_of, knock, request_of, wired
from tests.gateway.serving.test_wire import POST, TLS, ask, chunked, get, other

pytestmark = pytest.mark.long

BEGUN = POST + b"\r\nhost: x\r\n"
QUICK = 0.4
"""Seconds for a head, and for a body; a look is up to 0.5 s late."""


@asynccontextmanager
async def impatient() -> AsyncIterator[Wires]:
    async with wired(head_seconds=QUICK, body_seconds=QUICK, other=other) as wires:
        yield wires


async def drip(client: Client, piece: bytes) -> None:
    """Send a piece every tenth of a second, until the connection ends."""
    while not client.writer.is_closing() and not client.reader.at_eof():
        client.send(piece)
        await asyncio.sleep(0.1)


async def test_a_head_or_a_body_that_does_not_come_in_time_is_a_408_however_it_drips() -> None:
    async with impatient() as wires, asyncio.TaskGroup() as group:

        async def slow(name: str, begin: bytes, piece: bytes, status: int) -> None:
            async with knock(wires.house) as client:
                client.send(begin)
                began = time.monotonic()
                dripping = group.create_task(drip(client, piece))
                answer = await client.answer()
                assert answer.status == status and answer.headers[b"connection"] == b"close", name
                assert answer.error["code"] == ("request_timeout" if status == 408 else "invalid_http_request"), name
                assert await client.ended() == b"" and time.monotonic() - began < 3, name
                dripping.cancel()

        upload = b"POST /upload HTTP/1.1"
        for name, begin, piece, status in (
            ("headers", BEGUN, b"x: y\r\n", 408),
            ("one header", BEGUN, b"x", 408),
            ("empty lines", b"\r\n", b"\r\n", 408),
            ("half a TLS hello", TLS[:3], b"", 400),
            ("a body", ask()[:-40], b" ", 408),
            ("a silent body", ask()[:-40], b"", 408),
            ("chunks", chunked(body=b""), b"1\r\n \r\n", 408),
            ("a chunk's extension", chunked(body=b"1;"), b"x", 408),
            ("trailers", chunked(body=b"0\r\n"), b"x: y\r\n", 408),
            ("an upload to the other application", ask(upload, body=b"x" * 99)[:-40], b"x", 408),
        ):
            group.create_task(slow(name, begin, piece, status))
    assert not wires.engine.bodies and not wires.house.door.fronts


async def test_a_second_head_that_drips_takes_nothing_from_the_first_answer() -> None:
    stream = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(stream)
        for text in [b'data: {"choices":[{}]}\n\n'] * 6 + [b"data: [DONE]\n\n"]:
            writer.write(b"%x\r\n%b\r\n" % (len(text), text))
            await asyncio.sleep(0.2)
        writer.write(b"0\r\n\r\n")

    async with impatient() as wires, knock(wires.house) as client, asyncio.TaskGroup() as group:
        wires.engine.script = script
        client.send(request_of(body_of(stream=True)), BEGUN)
        dripping = group.create_task(drip(client, b"x"))
        answer = await client.answer()
        assert answer.body.endswith(b"data: [DONE]\n\n") and not answer.cut
        assert await client.ended() == b""
        dripping.cancel()


async def test_patience_is_for_who_is_served() -> None:
    """What takes us long, or an application that reads slowly, is not the client's fault."""

    async def slow(scope: object, receive: object, send: object) -> None:
        await asyncio.sleep(1.2)
        await other(scope, receive, send)

    async with wired(head_seconds=QUICK, body_seconds=QUICK, other=slow) as wires, knock(wires.house) as client:

        async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(1.2)
            await plain(_, writer)

        plain, wires.engine.script = wires.engine.script, script
        async with knock(wires.house) as second:
            client.send(ask())
            second.send(ask(b"POST /upload HTTP/1.1", body=b"x" * 3_000_000))
            assert (await client.answer()).status == 200
            assert (await second.answer()).status == 200
        client.send(get(b"/v1/models"))
        assert (await client.answer()).status == 200


@pytest.mark.processes  # for its four seconds, not for its processes
async def test_who_is_refused_and_neither_stops_sending_nor_reads_is_let_go() -> None:
    async with impatient() as wires, knock(wires.house, receive=4096) as client, asyncio.TaskGroup() as group:
        client.send(ask(POST, b"content-length: 99999999999", sized=False, body=b""))
        dripping = group.create_task(drip(client, b"x" * 100))
        await until(lambda: wires.house.door.fronts)
        await until(lambda: not wires.house.door.fronts, seconds=6)
        dripping.cancel()


async def test_fifty_slow_clients_hold_up_nobody() -> None:
    async with impatient() as wires, asyncio.TaskGroup() as group:

        async def slow() -> None:
            async with knock(wires.house) as client:
                client.send(BEGUN)
                await asyncio.sleep(0.6)

        for _ in range(50):
            group.create_task(slow())
        await until(lambda: len(wires.house.door.fronts) == 50)
        async with knock(wires.house) as client:
            for _ in range(20):
                began = time.monotonic()
                client.send(ask())
                assert (await client.answer()).status == 200
                assert time.monotonic() - began < 0.3
