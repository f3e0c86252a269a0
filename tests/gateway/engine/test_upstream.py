"""The pool: stale connections, aborts, what may be reused, what a head may hold. Real sockets throughout."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from gateway.engine.upstream import Upstream, parse_url
from gateway.errors import InvalidRequest, Unavailable, UpstreamBroken
from gateway.settings import TimeoutSettings

from .scripted import get, scripted, take_request

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


async def test_a_stale_pooled_connection_is_retried_once_on_a_new_one(sockets: Path) -> None:
    requests: list[int] = []

    async def script(number: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        requests.append(number)
        writer.write(OK)
        await take_request(reader)  # the second one finds the door closed
        requests.append(number)
        if number:
            writer.write(OK)

    async with scripted(sockets, script) as upstream:
        assert [await get(upstream) for _ in range(3)] == [b"ok"] * 3
    assert requests == [0, 0, 1, 1]


async def test_a_retry_that_finds_the_engine_gone_says_so(sockets: Path) -> None:
    async def script(number: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        writer.write(OK if number == 0 else b"")
        await take_request(reader)

    async with scripted(sockets, script) as upstream:
        await get(upstream)
        (sockets / "upstream.sock").unlink()
        with pytest.raises(Unavailable):
            await get(upstream)


async def test_a_new_connection_is_not_retried(sockets: Path) -> None:
    requests: list[int] = []

    async def script(number: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        requests.append(number)

    async with scripted(sockets, script) as upstream:
        with pytest.raises(UpstreamBroken):
            await get(upstream)
    assert requests == [0]


@pytest.mark.parametrize(
    "last", [b"connection: close\r\n", b""], ids=["it says close", "it sends more than it promised"]
)
async def test_a_connection_that_is_not_clean_is_not_used_again(sockets: Path, last: bytes) -> None:
    connections: list[int] = []

    async def script(number: int, reader: Reader, writer: Writer) -> None:
        connections.append(number)
        while True:
            await take_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n" + last + b"content-length: 2\r\n\r\nok" + (b"" if last else OK))

    async with scripted(sockets, script) as upstream:
        assert [await get(upstream) for _ in range(2)] == [b"ok", b"ok"]
    assert connections == [0, 1]


async def test_one_connection_carries_many_answers_of_every_framing(sockets: Path) -> None:
    answers = [OK, STREAM + b"2\r\nok\r\n0\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"] * 5
    connections: list[int] = []

    async def script(number: int, reader: Reader, writer: Writer) -> None:
        connections.append(number)
        for answer in answers:
            await take_request(reader)
            writer.write(answer)
        await reader.read()

    async with scripted(sockets, script) as upstream:
        assert [await get(upstream) for _ in answers] == [b"ok", b"ok", b""] * 5
    assert connections == [0]


async def test_closing_an_unfinished_answer_reaches_the_engine_at_once(sockets: Path) -> None:
    gone = asyncio.Event()

    async def script(_: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        writer.write(STREAM + b"2\r\nok\r\n")
        await reader.read()
        gone.set()

    async with scripted(sockets, script) as upstream:
        reply = await upstream.send(b"/x", ())
        assert await reply.chunk() == b"ok"
        reply.close()
        await asyncio.wait_for(gone.wait(), 0.5)
        with pytest.raises(UpstreamBroken):
            await reply.chunk()


async def test_cancelling_a_request_that_waits_for_its_head_reaches_the_engine(sockets: Path) -> None:
    here, gone = asyncio.Event(), asyncio.Event()

    async def script(_: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        here.set()
        await reader.read()
        gone.set()

    async with scripted(sockets, script) as upstream, asyncio.TaskGroup() as group:
        task = group.create_task(get(upstream))
        await asyncio.wait_for(here.wait(), 1)
        task.cancel()
        await asyncio.wait_for(gone.wait(), 0.5)


async def test_closing_a_finished_answer_leaves_the_connection_to_its_next_user(sockets: Path) -> None:
    async def script(_: int, reader: Reader, writer: Writer) -> None:
        while True:
            await take_request(reader)
            writer.write(OK)

    async with scripted(sockets, script) as upstream:
        first = await upstream.send(b"/x", ())
        await first.read()
        second = await upstream.send(b"/x", ())
        first.close()
        assert await second.read() == b"ok"


async def test_a_header_cannot_break_out_of_its_line(sockets: Path) -> None:
    upstream = Upstream(f"unix:{sockets}/nobody.sock", timeouts=TimeoutSettings())
    for name, value in ((b"a", b"x\r\nb: y"), (b"a", b"x\ny"), (b"a\r\nb", b"x"), (b"a", b"x\0"), (b"a", b"x\r")):
        with pytest.raises(InvalidRequest):
            await upstream.send(b"/x", [(name, value)])
    with pytest.raises(InvalidRequest):
        await upstream.send(b"/x HTTP/1.1\r\n", ())


async def test_framing_headers_are_ours_alone(sockets: Path) -> None:
    heads: list[bytes] = []

    async def script(_: int, reader: Reader, writer: Writer) -> None:
        head, _body = await take_request(reader)
        heads.append(head)
        writer.write(OK)
        await reader.read()

    given = [
        (b"content-length", b"99"),
        (b"transfer-encoding", b"chunked"),
        (b"host", b"evil"),
        (b"x-request-id", b"7"),
    ]
    async with scripted(sockets, script) as upstream:
        await (await upstream.send(b"/x", given, b"body")).read()
    assert heads == [b"POST /x HTTP/1.1\r\nhost: engine\r\nx-request-id: 7\r\ncontent-length: 4\r\n\r\n"]


async def test_after_closing_nothing_is_left_open(sockets: Path) -> None:
    async def script(_: int, reader: Reader, writer: Writer) -> None:
        await take_request(reader)
        writer.write(STREAM)
        await reader.read()

    async with scripted(sockets, script) as upstream:
        replies = [await upstream.send(b"/x", ()) for _ in range(3)]
        await upstream.aclose()
        for reply in replies:
            with pytest.raises(UpstreamBroken):
                await reply.chunk()
        with pytest.raises(Unavailable):
            await upstream.send(b"/x", ())
    gc.collect()


def test_only_http_and_unix_urls_are_engines() -> None:
    assert parse_url("unix:/run/e.sock") == ("/run/e.sock", "", 0)
    assert parse_url("http://engine:8000") == (None, "engine", 8000)
    for url in ("https://engine", "engine:8000", "http://engine/v1", ""):
        with pytest.raises(ValueError, match="no engine URL"):
            parse_url(url)
