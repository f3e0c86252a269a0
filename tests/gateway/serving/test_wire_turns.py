"""One connection, many requests: their order, their two applications, clients that half close, requests in bodies."""

from __future__ import annotations

import asyncio
import json
import socket
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.serving.house import until
from tests.gateway.serving.raw import Answer, Wires, body_of, knock, request_of, standing, whole, wired
from tests.gateway.serving.test_wire import ask, chunked, get, other

STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def echo(wires: Wires, *, wait: float = 0.0) -> None:
    """Let the engine answer with the request's user, so that each answer says whose it is."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told = wires.engine.bodies[-1]
        await asyncio.sleep(wait)
        body = json.dumps({"id": "x", "choices": [], "model": str(told.get("seed"))}).encode()
        writer.write(
            whole(body)
            if not told.get("stream")
            else STREAM + b"16\r\ndata: {}\n\ndata: [DONE]\r\n2\r\n\n\n\r\n0\r\n\r\n"
        )

    wires.engine.script = script


def numbered(number: int, kind: str) -> bytes:
    """A request of one of four kinds, and what its answer says about it."""
    if kind == "call":
        return ask(body=body_of(seed=number))
    if kind == "chunks":
        body = body_of(seed=number)
        return chunked(body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    return get(b"/%d" % number) if kind == "get" else ask(b"POST /%d HTTP/1.1" % number, body=b"x" * number)


def number_of(answer: Answer) -> int:
    told = json.loads(answer.body)
    return int(told["model"] if "model" in told else told["path"][1:])


KINDS = st.lists(st.sampled_from(["call", "chunks", "get", "upload"]), min_size=1, max_size=12)


def test_pipelined_requests_are_answered_in_their_order_however_they_are_cut() -> None:
    with standing(other=other) as (wires, run):
        run(echo(wires))

        @settings(deadline=None, suppress_health_check=list(HealthCheck))
        @given(kinds=KINDS, cuts=st.sets(st.integers(1, 4000), max_size=20), half=st.booleans())
        def check(kinds: list[str], cuts: set[int], half: bool) -> None:
            async def talk() -> list[int]:
                raw = b"".join(numbered(number, kind) for number, kind in enumerate(kinds))
                points = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
                async with knock(wires.house) as client:
                    for a, b in pairwise(points):
                        client.send(raw[a:b])
                        await asyncio.sleep(0)
                    if half:
                        client.writer.write_eof()
                    told = [number_of(await client.answer()) for _ in kinds]
                    assert not half or await client.ended() == b""
                    return told

            assert run(talk()) == list(range(len(kinds)))

        check()


async def test_pipelined_requests_run_one_after_the_other() -> None:
    async with wired() as wires, knock(wires.house) as client:
        await echo(wires, wait=0.05)
        client.send(*(numbered(number, "call") for number in range(4)))
        for number in range(4):
            assert number_of(await client.answer()) == number
            assert len(wires.engine.bodies) <= number + 2


HALVES: dict[str, Any] = {
    "a whole answer": ask(body=body_of(seed=7)),
    "a stream": ask(body=body_of(stream=True)),
    "a whole answer in HTTP/1.0": ask(b"POST /v1/chat/completions HTTP/1.0", body=body_of(seed=7)),
    "a stream in HTTP/1.0": ask(b"POST /v1/chat/completions HTTP/1.0", body=body_of(stream=True)),
    "the other application": get(b"/wait"),
    "the list of models": get(b"/v1/models"),
    "two requests": ask(body=body_of(seed=7)) + ask(body=body_of(seed=8)),
}


async def test_a_client_that_sends_no_more_still_gets_its_answer() -> None:
    async with wired(other=other) as wires, asyncio.TaskGroup() as group:
        await echo(wires, wait=0.7)  # over a look or two

        async def half(name: str, raw: bytes) -> None:
            async with knock(wires.house) as client:
                client.send(raw)
                client.writer.write_eof()
                for _ in range(raw.count(b"HTTP/1.")):
                    answer = await client.answer()
                    assert answer.status == 200 and not answer.cut and answer.body, name
                assert "stream" not in name or answer.body.endswith(b"data: [DONE]\n\n"), name
                assert await client.ended() == b"", name

        for name, raw in HALVES.items():
            group.create_task(half(name, raw))


async def test_a_stream_goes_on_for_a_client_that_half_closes_in_the_middle_of_it() -> None:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        for text in [b'data: {"choices":[{}]}\n\n'] * 4 + [b"data: [DONE]\n\n"]:
            writer.write(b"%x\r\n%b\r\n" % (len(text), text))
            await asyncio.sleep(0.2)
        writer.write(b"0\r\n\r\n")

    async with wired() as wires, knock(wires.house) as client:
        wires.engine.script = script
        client.send(request_of(body_of(stream=True)))
        await client.reader.readuntil(b"{}]}\n\n")
        client.writer.write_eof()
        rest = await client.ended()
        assert rest.count(b'{"choices":[{}]}') == 3 and rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        await until(lambda: wires.house.records.rows)
        assert wires.house.records.rows[-1].outcome == "ok"


async def test_a_client_that_ends_within_its_request_is_told_so() -> None:
    async with wired(other=other) as wires:
        for raw in (ask()[:-5], ask()[:40], chunked()[:-3]):
            async with knock(wires.house) as client:
                client.send(raw)
                client.writer.write_eof()
                answer = await client.answer()
                assert answer.status == 400 and "ended before" in answer.error["message"]
                assert await client.ended() == b""
        async with knock(wires.house) as client:
            client.send(ask(b"POST /x HTTP/1.1", body=b"xxx")[:-1])
            client.writer.write_eof()
            assert await client.ended() == b""
        assert not wires.engine.bodies and not wires.house.records.rows


async def test_the_other_application_gets_its_uploads_whole_and_its_early_answers_out() -> None:
    async with wired(other=other) as wires, knock(wires.house) as client:
        for path, status in ((b"/upload", 200), (b"/early", 401), (b"/upload", 200)):
            client.send(ask(b"POST %b HTTP/1.1" % path, body=b"x" * 5_000_000), ask(body=body_of()))
            answer = await client.answer()
            assert answer.status == status and json.loads(answer.body)["size"] == (5_000_000 if status == 200 else 0)
            assert (await client.answer()).status == 200


async def test_an_upload_to_the_other_application_that_is_no_http_is_refused() -> None:
    async with wired(other=other) as wires, knock(wires.house) as client:
        client.send(
            ask(b"POST /upload HTTP/1.1", b"transfer-encoding: chunked", sized=False, body=b"2\r\nok\r\nzz\r\n")
        )
        answer = await client.answer()
        assert answer.status == 400 and answer.error["code"] == "invalid_http_request"
        assert await client.ended() == b""


def test_whatever_is_inside_a_body_is_no_request() -> None:
    hidden = request_of(body_of(seed=99)).decode()
    with standing(other=other) as (wires, run):

        @settings(deadline=None, suppress_health_check=list(HealthCheck))
        @given(where=st.sampled_from(["text", "chunks", "trailer", "extension", "other"]), step=st.integers(1, 400))
        def check(where: str, step: int) -> None:
            wires.engine.bodies.clear()
            body = body_of(user=hidden)
            raw = {
                "text": ask(body=body),
                "chunks": chunked(
                    body=b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in _pieces(body, step)) + b"0\r\n\r\n"
                ),
                "trailer": chunked(body=b"%x\r\n%b\r\n0\r\nx: %b\r\n\r\n" % (len(body), body, hidden[:30].encode())),
                "extension": chunked(body=b"%x;x=POST\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
                "other": ask(b"POST /upload HTTP/1.1", body=hidden.encode() * 3),
            }[where]

            async def talk() -> int:
                async with knock(wires.house) as client:
                    for piece in _pieces(raw, step):
                        client.send(piece)
                    status = (await client.answer()).status
                    client.send(get(b"/v1/models"))
                    assert b'"object"' in (await client.answer()).body
                    return status

            assert run(talk()) == 200
            assert [one.get("seed") for one in wires.engine.bodies] == ([None] if where != "other" else [])

        check()


def _pieces(raw: bytes, step: int) -> list[bytes]:
    return [raw[start : start + step] for start in range(0, len(raw), step)]


async def test_a_client_that_leaves_takes_its_waiting_requests_with_it() -> None:
    async with wired(other=other) as wires, knock(wires.house) as client:
        await echo(wires, wait=0.4)
        client.send(*(numbered(number, "call") for number in range(5)))
        await until(lambda: len(wires.engine.bodies) == 1)
        client.abort()
        await until(lambda: wires.house.door.open == 0, seconds=1)
        await asyncio.sleep(0.5)
        assert len(wires.engine.bodies) == 1 and not wires.house.door.fronts


async def test_nothing_is_left_of_a_hundred_connections_that_ended_in_every_way() -> None:
    async with wired(other=other) as wires:
        await echo(wires, wait=0.02)

        async def one(number: int) -> None:
            raws = [ask(), ask()[:-3], b"noise\r\n\r\n", get(b"/wait"), ask(body=body_of(stream=True)), ask() * 3, b""]
            async with knock(wires.house) as client:
                client.send(raws[number % 7])
                await asyncio.sleep(number % 5 / 50)
                if number % 3 == 0:
                    client.writer.write_eof()
                elif number % 3 == 1:
                    linger = (1).to_bytes(4, "little") + bytes(4)
                    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(one(number))
        await until(
            lambda: not wires.house.door.fronts and not wires.house.door.open and not wires.house.residency.leased
        )
        async with knock(wires.house) as client:
            client.send(ask())
            assert (await client.answer()).status == 200
