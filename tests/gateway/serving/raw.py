"""Both ends of the wire in the tests' hands: an engine that answers inference as scripted, and a client of raw bytes.

The engine is one without our plugin: it serves the base model, so a request names the model `base`. The readiness
questions it answers by itself. `standing` keeps a house up in a thread, so that Hypothesis can knock many times.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from tests.gateway.serving.house import ACME, BASE_MODEL, HELLO, House, alias, open_house, picture

PROBE = json.dumps({"choices": [{"text": "x"}]}).encode()
MODELS = json.dumps({"data": [{"id": BASE_MODEL, "max_model_len": 4096}]}).encode()
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def whole(body: bytes, *more: bytes) -> bytes:
    """A unary answer as an engine sends it."""
    head = [b"HTTP/1.1 200 OK", b"content-type: application/json", b"content-length: %d" % len(body), *more]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


@dataclass
class Engine:
    """The scripted engine: `script` answers each inference whose request was read; `bodies` are their bodies."""

    url: str
    script: Script
    bodies: list[Any] = field(default_factory=list)
    connections: int = 0


@asynccontextmanager
async def scripted_engine() -> AsyncIterator[Engine]:
    """Up on a Unix socket. Without another script it says `{"id":"x","choices":[]}`."""
    with tempfile.TemporaryDirectory(prefix="tl-") as directory:

        async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(whole(b'{"id":"x","choices":[]}'))

        engine = Engine(f"unix:{Path(directory) / 'engine.sock'}", plain)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            engine.connections += 1
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    await _answer(engine, reader, writer)
            writer.transport.abort()

        server = await asyncio.start_unix_server(accept, engine.url.removeprefix("unix:"))
        try:
            yield engine
        finally:
            server.close()


async def _answer(engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    body = await reader.readexactly(length)
    path = head.split(b" ")[1]
    if path == b"/v1/models":
        writer.write(whole(MODELS))
    elif path.startswith(b"/tuneloop/"):
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
    elif b"cache_salt" not in body:
        writer.write(whole(PROBE))
    else:
        engine.bodies.append(json.loads(body))
        await engine.script(reader, writer)


@dataclass
class Wires:
    """A house in front of a scripted engine."""

    house: House
    engine: Engine


@asynccontextmanager
async def wired(**more: Any) -> AsyncIterator[Wires]:
    """Both, up and ready."""
    more.setdefault("snapshot", picture(aliases=[alias("acme", "chat", ("base", 1, None))], adapters=[]))
    async with scripted_engine() as engine, open_house(engine_url=engine.url, **more) as house:
        yield Wires(house, engine)


@dataclass
class Answer:
    """One answer as a client reads it. `cut`: the connection ended before it was whole."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    cut: bool = False
    interim: int = 0

    @property
    def error(self) -> dict[str, Any]:
        """The error object; fails unless the body is exactly one in OpenAI's shape."""
        told = json.loads(self.body)
        assert set(told) == {"error"} and set(told["error"]) == {"message", "type", "param", "code"}, told
        assert self.headers[b"content-type"] == b"application/json" and isinstance(told["error"]["message"], str)
        return dict(told["error"])


class Client:
    """One connection of raw bytes to the house."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))

    async def answer(self, *, head: bool = False, seconds: float = 5.0) -> Answer:
        """Read one answer; ConnectionError when the connection ended without a byte of one."""
        async with asyncio.timeout(seconds):
            interim = 0
            while (told := await self._head()).status < 200:
                interim += 1
            told.interim = interim
            if head or told.status in (204, 304):
                return told
            try:
                told.body = await self._body(told.headers)
            except asyncio.IncompleteReadError as error:
                told.body, told.cut = error.partial, True
        return told

    async def _head(self) -> Answer:
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError(error.partial) from None
        first, *lines = raw[:-4].split(b"\r\n")
        version, status, _ = first.split(b" ", 2)
        assert version == b"HTTP/1.1", first
        return Answer(int(status), dict(_split(line) for line in lines), b"")

    async def _body(self, headers: dict[bytes, bytes]) -> bytes:
        if b"content-length" in headers:
            assert b"transfer-encoding" not in headers
            return await self.reader.readexactly(int(headers[b"content-length"]))
        if headers.get(b"transfer-encoding") != b"chunked":
            return await self.reader.read()
        got = b""
        while True:
            try:
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                piece = await self.reader.readexactly(size + 2)
            except asyncio.IncompleteReadError as error:
                raise asyncio.IncompleteReadError(
                    got + (error.partial if b"\r" not in error.partial else b""), None
                ) from None
            got += piece[:-2]
            if not size:
                return got

    async def ended(self, *, seconds: float = 5.0) -> bytes:
        """Wait for the connection's end; what came before it."""
        async with asyncio.timeout(seconds):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


def _split(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    assert name == name.strip(), line
    return name.lower(), value.strip()


@asynccontextmanager
async def knock(house: House, *, receive: int = 0) -> AsyncIterator[Client]:
    """A connection to the house. `receive`: the bytes its kernel takes before anybody reads."""
    host, port = house.url.removeprefix("http://").split(":")
    plain = socket.socket()
    if receive:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
    client = Client(*await asyncio.open_connection(sock=plain, limit=1 << 16))
    try:
        yield client
    finally:
        client.abort()


async def stands_still(count: Callable[[], int]) -> int:
    """Wait until a count that has begun does not grow any more, for a fifth of a second; the count."""
    before = -1
    while count() > before or not before:
        before = count()
        await asyncio.sleep(0.2)
    return before


def body_of(**more: Any) -> bytes:
    return json.dumps({"model": "base", "messages": HELLO, **more}).encode()


def request_of(body: bytes, *headers: bytes, path: bytes = b"/v1/chat/completions", key: str = ACME) -> bytes:
    """A well-made request."""
    told = [b"POST %b HTTP/1.1" % path, b"host: x", b"authorization: Bearer " + key.encode(), *headers]
    return b"\r\n".join([*told, b"content-length: %d" % len(body), b"", body])


@contextmanager
def standing(**more: Any) -> Iterator[tuple[Wires, Callable[[Coroutine[Any, Any, Any]], Any]]]:
    """`wired` up in a thread with a loop of its own, and what runs a coroutine there: Hypothesis knocks many times."""
    up: Future[tuple[Wires, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def stand() -> None:
        try:
            async with wired(**more) as wires:
                down = asyncio.Event()
                up.set_result((wires, asyncio.get_running_loop(), down))
                await down.wait()
        except BaseException as error:
            if up.done():
                raise
            up.set_exception(error)

    def live() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(stand())

    thread = threading.Thread(target=live)
    thread.start()
    wires, loop, down = up.result()
    try:
        yield wires, lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(30)
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join()
