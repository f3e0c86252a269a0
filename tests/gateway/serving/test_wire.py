"""The client's side of the wire, by raw sockets on the front as production runs it: what is refused, what is served.

Whatever comes, the answer is HTTP, an error is in OpenAI's shape, the connection ends where its framing is in doubt,
the engine hears of nothing but whole and well-made requests, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.gateway.serving.house import ACME
from tests.gateway.serving.raw import Client, Wires, body_of, knock, request_of, whole, wired

BODY = body_of()
KEY = b"authorization: Bearer " + ACME.encode()
POST = b"POST /v1/chat/completions HTTP/1.1"
OFFER = (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABkAARAAAAAAAIAAAAA")
WEBSOCKET = (b"connection: Upgrade", b"upgrade: websocket", b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==")
TLS = bytes.fromhex("16030100c8010000c40303") + b"a" * 190


def ask(first: bytes = POST, *headers: bytes, body: bytes = BODY, key: bytes = KEY, sized: bool = True) -> bytes:
    """A request, line by line. `sized`: with its content-length."""
    size = [b"content-length: %d" % len(body)] if sized else []
    return b"\r\n".join([first, b"host: x", key, *headers, *size, b"", body])


def chunked(*lines: bytes, body: bytes | None = None) -> bytes:
    """A request whose body comes in chunks, or in what is given for them."""
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if body is None else body
    return ask(POST, *(lines or (b"transfer-encoding: chunked",)), body=body, sized=False)


def get(path: bytes, *headers: bytes) -> bytes:
    return ask(b"GET %b HTTP/1.1" % path, *headers, body=b"", sized=False)


NO_REQUEST: dict[str, bytes] = {
    "a length and chunks": ask(POST, b"transfer-encoding: chunked"),
    "chunks and a length": chunked(b"transfer-encoding: chunked", b"content-length: 5"),
    "two lengths": ask(POST, b"content-length: 5"),
    "the same length twice": ask(POST, b"content-length: %d" % len(BODY)),
    "a list of lengths": ask(POST, b"content-length: %d, %d" % (len(BODY), len(BODY)), sized=False),
    "a length with a sign": ask(POST, b"content-length: +%d" % len(BODY), sized=False),
    "a length below zero": ask(POST, b"content-length: -1", sized=False),
    "a length in hexadecimal": ask(POST, b"content-length: 0x10", sized=False),
    "an empty length": ask(POST, b"content-length:", sized=False),
    "a length of 23 digits": ask(POST, b"content-length: 99999999999999999999999", sized=False),
    "a space before the colon of a length": ask(POST, b"content-length : %d" % len(BODY), sized=False),
    "a space before the colon of a coding": chunked(b"transfer-encoding : chunked"),
    "chunks twice": chunked(b"transfer-encoding: chunked", b"transfer-encoding: chunked"),
    "a list of chunks": chunked(b"transfer-encoding: chunked, chunked"),
    "another coding": chunked(b"transfer-encoding: gzip"),
    "another coding before chunks": chunked(b"transfer-encoding: gzip, chunked"),
    "another coding after chunks": chunked(b"transfer-encoding: chunked, gzip"),
    "the coding that is none": ask(POST, b"transfer-encoding: identity"),
    "a coding that looks like chunks": chunked(b"transfer-encoding: xchunked"),
    "a coding behind a vertical tab": chunked(b"transfer-encoding: \x0bchunked"),
    "a coding in quotes": chunked(b'transfer-encoding: "chunked"'),
    "chunks in HTTP/1.0": chunked().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a chunk size in letters": chunked(body=b"zz\r\n" + BODY),
    "a chunk size below zero": chunked(body=b"-5\r\n" + BODY),
    "a chunk size beyond 64 bits": chunked(body=b"fffffffffffffffff\r\n" + BODY),
    "chunks by line feeds": chunked(body=b"%x\n%b\n0\n\n" % (len(BODY), BODY)),
    "a chunk longer than it says": chunked(body=b"2\r\n%b\r\n0\r\n\r\n" % BODY),
    "a folded header": ask(POST, b"x: a\r\n b"),
    "a folded coding": ask(POST, b"x: a\r\n transfer-encoding: chunked"),
    "line feeds alone": ask().replace(b"\r\n", b"\n"),
    "a line feed in a header": ask(POST, b"x: a\ny: b"),
    "a carriage return in a header": ask(POST, b"x: a\rb"),
    "a NUL in a header": ask(POST, b"x: a\0b"),
    "a header without a colon": ask(POST, b"xxxx"),
    "a header without a name": ask(POST, b": b"),
    "a space in a header's name": ask(POST, b"x y: b"),
    "a header's name in UTF-8": ask(POST, "ö: b".encode()),
    "two hosts": ask(POST, b"host: y"),
    "two keys": ask(POST, b"authorization: Bearer other"),
    "two content types": ask(POST, b"content-type: application/json", b"content-type: text/plain"),
    "no target": ask(b"POST  HTTP/1.1"),
    "a relative target": ask(b"POST v1/chat/completions HTTP/1.1"),
    "a NUL in the target": ask(b"POST /v1/chat/completions\0 HTTP/1.1"),
    "a tab in the target": ask(b"POST /v1/chat/completions\tx HTTP/1.1"),
    "bytes beyond ASCII in the target": ask(b"POST /v1/chat/completions\xff HTTP/1.1"),
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/1.2": ask(b"POST /v1/chat/completions HTTP/1.2"),
    "HTTP/2.0": ask(b"POST /v1/chat/completions HTTP/2.0"),
    "HTTP/2's own preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9,
    "an unknown method": ask(b"FOO /v1/chat/completions HTTP/1.1"),
    "a method in lower case": ask(b"post /v1/chat/completions HTTP/1.1"),
    "CONNECT": ask(b"CONNECT example.com:443 HTTP/1.1", body=b""),
    "CONNECT to a path": ask(b"CONNECT /v1/chat/completions HTTP/1.1"),
    "an upgrade with a length and chunks": ask(POST, *OFFER, b"transfer-encoding: chunked"),
    "TLS": TLS,
    "noise": b"\xde\xad\xbe\xef" * 20,
    "nothing but NULs": b"\0" * 50,
    "a header of 70 kB": ask(POST, b"x: " + b"a" * 70_000),
    "12,000 headers": ask(POST, *[b"x: y"] * 12_000),
    "a target of 70 kB": ask(b"POST /" + b"a" * 70_000 + b" HTTP/1.1"),
    "a body of 9 EB": ask(POST, b"content-length: 9223372036854775807", sized=False),
}
STATUS = {"CONNECT": 405, "CONNECT to a path": 405, "a body of 9 EB": 413}
STATUS |= dict.fromkeys(("a header of 70 kB", "12,000 headers", "a target of 70 kB"), 431)

NOT_SERVED: dict[str, tuple[int, bytes]] = {
    "no key": (401, ask(key=b"x: y")),
    "an empty key": (401, ask(key=b"authorization:")),
    "another scheme": (401, ask(key=b"authorization: Basic YTpi")),
    "a key that is no text": (401, ask(key=b"authorization: Bearer \xff\xfe\x80")),
    "a key of 50 kB": (401, ask(key=b"authorization: Bearer " + b"a" * 50_000)),
    "no body": (400, ask(sized=False, body=b"")),
    "an empty body": (400, ask(body=b"")),
    "a compressed body": (400, ask(POST, b"content-encoding: gzip", body=b"\x1f\x8b\x08\0\0")),
    "a form": (415, ask(POST, b"content-type: application/x-www-form-urlencoded")),
    "plain text": (415, ask(POST, b"content-type: text/plain")),
    "JSON in another charset": (415, ask(POST, b"content-type: application/json; charset=utf-16")),
    "GET": (405, get(b"/v1/chat/completions")),
    "PUT": (405, ask(b"PUT /v1/chat/completions HTTP/1.1")),
    "OPTIONS": (405, ask(b"OPTIONS /v1/chat/completions HTTP/1.1", body=b"")),
    "TRACE": (405, ask(b"TRACE /v1/chat/completions HTTP/1.1", body=b"")),
    "a websocket": (405, get(b"/v1/chat/completions", *WEBSOCKET)),
    "a model's name that is no UTF-8": (404, get(b"/v1/models/%ff%zz")),
    "a path that begins like ours": (404, get(b"/v1/modelsx")),
    "a body over the limit": (413, ask(body=b" " * 2_000_000)),
    "chunks over the limit": (413, chunked(body=(b"10000\r\n" + b" " * 65_536 + b"\r\n") * 20 + b"0\r\n\r\n")),
}
"""Well-made as HTTP: the connection goes on."""

SERVED: dict[str, bytes] = {
    "plain": ask(),
    "chunks": chunked(),
    "chunks after a tab": chunked(b"transfer-encoding:\tchunked"),
    "chunks with extensions": chunked(body=b"%x;a=b\r\n%b\r\n0;c\r\n\r\n" % (len(BODY), BODY)),
    "chunks with trailers": chunked(body=b"%x\r\n%b\r\n0\r\nauthorization: Bearer no\r\n\r\n" % (len(BODY), BODY)),
    "a header beyond ASCII": ask(POST, b"x: \xff\xfe"),
    "empty lines before it": b"\r\n\r\n" + ask(),
    "an absolute target": ask(b"POST http://elsewhere/v1/chat/completions HTTP/1.1"),
    "a query": ask(b"POST /v1/chat/completions?api-version=1 HTTP/1.1"),
    "a key in lower case": ask(key=b"authorization: bearer " + ACME.encode()),
    "blanks around the key": ask(key=b"authorization:   Bearer   %b  " % ACME.encode()),
    "JSON with a charset": ask(POST, b'content-type: application/JSON; charset="UTF-8"'),
    "an expectation": ask(POST, b"expect: 100-continue"),
    "an offer of h2c": ask(POST, *OFFER),
    "an offer of h2c with chunks": chunked(*OFFER, b"transfer-encoding: chunked"),
}

ELSEWHERE = (
    b"/v1/chat%2Fcompletions", b"/v1/%63hat/completions", b"/v1/x/../chat/completions", b"//v1//chat/completions",
    b"/v1/chat/completions/", b"/v1/chat/completions%00", b"http://elsewhere", b"*",
)  # fmt: skip
"""Targets that somebody might take for ours: they are not, and their requests go to the other application."""


async def other(scope: Any, receive: Any, send: Any) -> None:
    """The application beside the door: says how many bytes it got; `/early` does not wait for them."""
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    if scope["path"] == "/wait":
        await asyncio.sleep(0.3)
    body = json.dumps({"path": scope["raw_path"].decode(), "size": size, "http": scope["http_version"]}).encode()
    head = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 401 if scope["path"] == "/early" else 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def undisturbed() -> AsyncIterator[Wires]:
    """A house where a stream runs all the while; in the end it must be whole, and the event loop without complaints."""
    over, quarrels = asyncio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: quarrels.append(context))
    async with wired(other=other) as wires, knock(wires.house) as witness:
        plain = wires.engine.script

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not wires.engine.bodies[-1].get("stream"):
                return await plain(reader, writer)
            wires.engine.bodies.clear()
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for piece in (b'data: {"choices":[{}]}\n\n', b"data: [DONE]\n\n"):
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await over.wait()
            return writer.write(b"0\r\n\r\n")

        wires.engine.script = script
        witness.send(request_of(body_of(stream=True)))
        assert await witness.reader.readuntil(b"{}]}\n\n")
        yield wires
        over.set()
        assert (await witness.reader.readuntil(b"0\r\n\r\n")).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert not quarrels


async def trickle(client: Client, raw: bytes, step: int) -> None:
    for start in range(0, len(raw), step):
        client.send(raw[start : start + step])
        await asyncio.sleep(0)


async def test_what_is_no_request_is_refused_in_openais_shape_and_ends_its_connection_and_nothing_else() -> None:
    async with undisturbed() as wires:
        for name, raw in NO_REQUEST.items():
            for step in (1 << 20, 9) if len(raw) < 1000 else (1 << 20,):
                async with knock(wires.house) as client:
                    await trickle(client, raw, step)
                    answer = await client.answer()
                    assert answer.status == STATUS.get(name, 400), (name, step, answer)
                    assert answer.error["type"] == "invalid_request_error", name
                    assert answer.headers[b"connection"] == b"close" and await client.ended() == b"", name
        assert not wires.engine.bodies


async def test_a_request_that_is_not_served_leaves_its_connection_to_the_next() -> None:
    async with undisturbed() as wires, knock(wires.house) as client:
        for name, (status, raw) in NOT_SERVED.items():
            for step in (1 << 20, 9) if len(raw) < 1000 else (1 << 20,):
                await trickle(client, raw, step)
                answer = await client.answer()
                assert (answer.status, answer.error["type"]) == (status, "invalid_request_error"), (name, answer)
        assert not wires.engine.bodies
        client.send(ask())
        assert (await client.answer()).status == 200


async def test_unusual_requests_are_served_once_and_leave_their_connection_to_the_next() -> None:
    async with undisturbed() as wires, knock(wires.house) as client:
        for count, (name, raw) in enumerate(SERVED.items(), 1):
            await trickle(client, raw, 1 << 20 if count % 2 else 9)
            answer = await client.answer()
            assert (answer.status, len(wires.engine.bodies)) == (200, count), (name, answer)
            assert answer.interim == (name == "an expectation")


async def test_targets_that_look_like_ours_are_the_other_applications() -> None:
    async with undisturbed() as wires, knock(wires.house) as client:
        for target in ELSEWHERE:
            client.send(ask(b"POST %b HTTP/1.1" % target))
            told = json.loads((await client.answer()).body)
            assert told["size"] == len(BODY) and told["http"] == "1.1", target
        assert not wires.engine.bodies


async def test_answers_to_head_have_no_body_and_the_connection_goes_on() -> None:
    async with wired(other=other) as wires, knock(wires.house) as client:
        for path, status in ((b"/v1/chat/completions", 405), (b"/v1/models", 405), (b"/x", 200)):
            client.send(ask(b"HEAD %b HTTP/1.1" % path, body=b""))
            assert (await client.answer(head=True)).status == status
        client.send(ask())
        assert (await client.answer()).status == 200


async def test_http_1_0_and_a_close_that_was_asked_for_end_with_the_answer() -> None:
    lasts = [ask(POST, b"connection: close"), ask(POST, b"connection: keep-alive, Close")]
    lasts += [ask(POST, b"connection: Upgrade, close", b"upgrade: h2c"), get(b"/x", b"connection: close")]
    olds = [one.replace(b"HTTP/1.1", b"HTTP/1.0") for one in (ask(), ask(POST, b"connection: keep-alive"), get(b"/x"))]
    olds.append(ask(b"POST /v1/chat/completions HTTP/1.0", b"connection: Upgrade", b"upgrade: h2c"))
    async with wired(other=other) as wires:
        for raw in lasts + olds:
            async with knock(wires.house) as client:
                client.send(raw, ask() if raw in lasts else b"")  # what comes after it is not read
                answer = await client.answer()
                assert (answer.status, answer.headers[b"connection"]) == (200, b"close"), raw
                assert b"transfer-encoding" not in answer.headers and await client.ended() == b"", raw


async def test_a_stream_in_http_1_0_ends_with_its_connection() -> None:
    stream = b'data: {"choices":[{}]}\n\ndata: [DONE]\n\n'

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(stream))

    async with wired() as wires, knock(wires.house) as client:
        wires.engine.script = script
        client.send(request_of(body_of(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await client.answer()
        assert b"transfer-encoding" not in answer.headers and answer.body == stream


async def test_who_sends_far_too_much_reads_the_reason_and_not_a_broken_connection() -> None:
    told = ask(POST, b"expect: 100-continue", b"content-length: 40000000", sized=False, body=b"")
    untold = ask(POST, b"transfer-encoding: chunked", sized=False, body=b"")
    piece = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    async with wired(max_body_bytes=10_000) as wires:
        for head in (told, untold, b"noise\r\n\r\n"):
            async with knock(wires.house) as client:
                client.send(head)
                for _ in range(300):  # 20 MB, and nothing is read meanwhile
                    client.send(piece)
                    await client.writer.drain()
                answer = await client.answer()
                assert answer.status == (400 if head.startswith(b"noise") else 413) and answer.error
                assert not answer.interim  # nobody was asked to go on
        assert not wires.engine.bodies
