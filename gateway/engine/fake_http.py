"""The fake engine's HTTP/1.1 server: raw asyncio.Protocol and httptools, so that it can also misbehave byte by byte.

Each request becomes an `Exchange` and one task; a client that leaves cancels the task. It knows nothing of models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import cast

import httptools

BODY_LIMIT = 64 * 1024 * 1024
Answerer = Callable[["Exchange"], Awaitable[None]]


class Wire:
    """How the server treats its sockets; the engine's fault switches change it while it runs."""

    def __init__(self) -> None:
        self.slice_bytes = 0  # > 0: write in pieces of so many bytes
        self.close_idle = False  # close each connection after its answer without having said so
        self.drop_reused = False  # close a connection unanswered when it brings its second request
        self.keep_alive = 5.0  # seconds, uvicorn's default


class Exchange:
    """One request, and the means to answer it."""

    def __init__(
        self, connection: ServerConnection, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> None:
        self._connection = connection
        self._chunked = False
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.answered = False

    async def reply(self, status: int, body: bytes, *, content_type: bytes = b"application/json") -> None:
        """Answer at once and in whole."""
        head = b"HTTP/1.1 %d %b\r\ncontent-length: %d\r\ncontent-type: %b\r\n\r\n"
        self.answered = True
        await self._connection.send(head % (status, _phrase(status), len(body), content_type) + body)
        self._connection.finish()

    async def reply_cut(self, body: bytes) -> None:
        """Promise `body`, send half of it, and cut the connection."""
        self.answered = True
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n" % len(body)
        await self._connection.send(head + body[: len(body) // 2])
        self._connection.close()

    async def begin_stream(self) -> None:
        """Send the head of a stream of server-sent events."""
        self.answered = True
        await self._connection.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )

    async def event(self, data: bytes) -> None:
        """Send one event as one HTTP chunk; waits while the client reads too slowly."""
        await self._connection.send(b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data))

    async def frame(self, frame: bytes) -> None:
        """Send what is an event already, as one HTTP chunk; waits as `event` does."""
        await self._connection.send(b"%x\r\n%b\r\n" % (len(frame), frame))

    async def end_stream(self) -> None:
        await self._connection.send(b"0\r\n\r\n")
        self._connection.finish()

    def cut(self) -> None:
        """Close the connection as it is, after what was written has left."""
        self._connection.close()


class ServerConnection(asyncio.Protocol):
    """One client's connection, one request at a time: who sends a second one before the first's answer is cut off."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport = cast(asyncio.Transport, None)  # until connection_made
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._blocked = self._close_after = False
        self._requests = 0
        self._path = b""
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self.idle_since = 0.0  # 0: busy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        self.idle_since = self._server.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._release()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self.idle_since = 0.0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self._transport.close()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._release()

    def _release(self) -> None:
        self._blocked = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def on_message_begin(self) -> None:
        self._path, self._headers, self._body = b"", {}, bytearray()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > BODY_LIMIT:
            self._transport.abort()

    def on_message_complete(self) -> None:
        self._requests += 1
        if self._task is not None or (self._server.wire.drop_reused and self._requests > 1):
            self._transport.close()
            return
        self._close_after = not self._parser.should_keep_alive()
        method = self._parser.get_method().decode()
        exchange = Exchange(self, method, self._path.decode("latin-1"), self._headers, bytes(self._body))
        self._task = self._server.group.create_task(self._answer(exchange))

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._server.answer(exchange)
        except Exception as error:  # a defect of the fake must be seen by whoever called it, and not stop the others
            if not exchange.answered:
                await exchange.reply(500, f'{{"error": "the fake engine failed: {type(error).__name__}"}}'.encode())
        finally:
            self._task = None

    async def send(self, data: bytes) -> None:
        """Write; waits while the client reads too slowly."""
        if self._blocked:
            self._drained = self._server.loop.create_future()
            await self._drained
        if self._transport.is_closing():
            raise ConnectionResetError
        size = self._server.wire.slice_bytes
        if not size:
            self._transport.write(data)
            return
        for start in range(0, len(data), size):
            self._transport.write(data[start : start + size])
            await asyncio.sleep(0)  # one write to the socket each

    def finish(self) -> None:
        """The answer is out: wait for the next request, or close."""
        if self._close_after or self._server.wire.close_idle:
            self._transport.close()
        self.idle_since = self._server.loop.time()

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


class Server:
    """Accepts connections and keeps their tasks in `group`."""

    def __init__(self, answer: Answerer, wire: Wire, group: asyncio.TaskGroup) -> None:
        self.answer = answer
        self.wire = wire
        self.group = group
        self.loop = asyncio.get_running_loop()
        self.connections: set[ServerConnection] = set()
        self._listener: asyncio.AbstractServer | None = None

    async def listen(self, *, uds: str | None, host: str, port: int) -> str:
        """Bind; the URL that `HttpEngine` takes."""
        if uds is not None:
            self._listener = await self.loop.create_unix_server(lambda: ServerConnection(self), uds, backlog=2048)
            return f"unix:{uds}"
        listener = await self.loop.create_server(lambda: ServerConnection(self), host, port, backlog=2048)
        self._listener = listener
        return f"http://{host}:{listener.sockets[0].getsockname()[1]}"

    async def sweep(self) -> None:
        """Close what has been idle for longer than the keep-alive time, as uvicorn does; forever."""
        while True:
            await asyncio.sleep(0.25)
            before = self.loop.time() - self.wire.keep_alive
            for connection in tuple(self.connections):
                if 0 < connection.idle_since < before:
                    connection.close()

    def stop(self) -> None:
        """Stop listening and cut every connection, as a killed process does."""
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self.connections):
            connection.abort()


def _phrase(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()
