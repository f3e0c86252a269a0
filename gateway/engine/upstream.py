"""The pool of HTTP/1.1 connections to one engine, over TCP or a Unix socket.

LIFO, so that few connections stay warm. A stale pooled connection is retried once, on a new connection, before any byte
of an answer was seen; nothing is retried after it. It knows nothing of models, JSON or SSE.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.engine.connection import Connection
from gateway.engine.lane import closed, opened
from gateway.engine.reply import Reply
from gateway.errors import InvalidRequest, Unavailable, UpstreamBroken
from gateway.heads import Heads
from gateway.settings import TimeoutSettings

if TYPE_CHECKING:
    from gateway.engine._lane import Lane

MOST_CONNECTIONS = 5000
"""More than admission (serving/turns.py) lets through, so that nobody waits twice."""
_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"))


class Upstream:
    """A pool of connections to `http://host:port` or `unix:/path`, used by one event loop.

    At most `max_connections` are open; a request beyond that waits `timeouts.connect` seconds for one, then gets
    `Unavailable`. `lane`: let usual chunks of streams pass in compiled code (`lane.py`), where there is such.
    """

    def __init__(
        self, url: str, *, timeouts: TimeoutSettings, max_connections: int = MOST_CONNECTIONS, lane: bool = True
    ) -> None:
        self._unix, self._host, self._port = parse_url(url)
        self._host_header = b"engine" if self._unix else f"{self._host}:{self._port}".encode()
        self._max = max_connections
        self._open: set[Connection] = set()
        self._connecting = 0
        self._free: list[Connection] = []
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._has_lane = lane
        self.lane: Lane | None = None  # from the first connection on
        self._connect_seconds = timeouts.connect
        self.heads: Heads[list[tuple[bytes, bytes]]] = Heads()
        self.first_byte, self.idle, self.total = timeouts.first_byte, timeouts.idle, timeouts.total
        self.soonest = min(self.first_byte, self.idle, self.total)

    async def send(
        self,
        path: bytes,
        headers: Iterable[tuple[bytes, bytes]] | bytes,
        body: bytes = b"",
        *,
        method: bytes = b"POST",
        seconds: float | None = None,
    ) -> Reply:
        """Send one request; return when the head of its answer is here (see `base.Engine.send`).

        `seconds` replaces the configured first-byte and total timeouts. Framing headers are ours: given ones are left
        out. Cancelling this aborts the request.
        """
        head = request_head(method, path, self._host_header, headers, len(body))
        connection = self._pop() or await self._open_one()
        while True:
            reply = connection.start(head, body, seconds=seconds)
            try:
                while not reply.status and reply.error is None:
                    await reply.wait()
            except BaseException:
                reply.close()
                raise
            if reply.status or reply.error is None:
                return reply
            if connection.uses == 1 or connection.heard or not isinstance(reply.error, UpstreamBroken):
                raise reply.error
            # A stale pooled connection: not a byte was answered, so nothing is done twice.
            connection = await self._connect()

    def _pop(self) -> Connection | None:
        while self._free:
            connection = self._free.pop()
            if connection.usable:
                return connection
        return None

    async def _open_one(self) -> Connection:
        while not self._closed:
            if len(self._open) + self._connecting < self._max:
                return await self._connect()
            await self._wait_for_one()
            connection = self._pop()
            if connection is not None:
                return connection
        raise Unavailable("The gateway is shutting down.")

    async def _wait_for_one(self) -> None:
        """Sleep until a connection or a place for one is free (somebody else may still be quicker)."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._connect_seconds):
                await waiter
        except BaseException as error:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled():
                self._wake_one()  # we were woken and leave all the same: it is the next one's turn
            if isinstance(error, TimeoutError):
                raise Unavailable("The engine has no connection free.", remedy="Try again in a moment.") from None
            raise

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if self._has_lane and self.lane is None:
            self.lane = opened(loop)
        connection = Connection(self, loop)
        self._connecting += 1
        try:
            async with asyncio.timeout(self._connect_seconds):
                if self._unix:
                    await loop.create_unix_connection(lambda: connection, self._unix)
                else:
                    await loop.create_connection(lambda: connection, self._host, self._port)
        except BaseException as error:
            connection.drop()
            self._wake_one()
            if isinstance(error, OSError):  # TimeoutError is one
                raise Unavailable("The engine cannot be reached.", remedy="Try again in a moment.") from None
            raise
        finally:
            self._connecting -= 1
        self._open.add(connection)
        return connection

    def give(self, connection: Connection) -> None:
        """Take back a connection that is fit for another request."""
        if self._closed:
            connection.drop()
            return
        self._free.append(connection)
        if self._waiters:
            self._wake_one()

    def forget(self, connection: Connection) -> None:
        """The connection is gone. May be called twice."""
        if connection in self._open:
            self._open.discard(connection)
            if connection in self._free:
                self._free.remove(connection)
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def aclose(self) -> None:
        """Abort every connection and refuse further requests."""
        self._closed = True
        for connection in tuple(self._open):
            connection.fail(UpstreamBroken("The gateway is shutting down."))
        while self._waiters:
            self._wake_one()
        if self.lane is not None:
            closed(self.lane, asyncio.get_running_loop())
            self.lane = None
        await asyncio.sleep(0)  # lets the transports close their sockets


def parse_url(url: str) -> tuple[str | None, str, int]:
    """(Unix path or None, host, port). Raises ValueError for anything but `http://host:port` and `unix:/path`."""
    if url.startswith("unix:"):
        return url.removeprefix("unix:").removeprefix("//"), "", 0
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"{url!r} is no engine URL: write http://host:port or unix:/path/to.sock")
    return None, parts.hostname, parts.port or 80


def request_head(
    method: bytes, path: bytes, host: bytes, headers: Iterable[tuple[bytes, bytes]] | bytes, length: int
) -> bytes:
    """The head's bytes. `headers` as bytes are whole lines whose writer vouches for them.

    Raises `InvalidRequest` when a value would break out of its line.
    """
    if isinstance(headers, bytes):
        return b"%b %b HTTP/1.1\r\nhost: %b\r\n%bcontent-length: %d\r\n\r\n" % (method, path, host, headers, length)
    parts = [method, b" ", path, b" HTTP/1.1\r\nhost: ", host]
    breaks = 4  # of our own lines, the empty last one included
    for name, value in headers:
        if name not in _FRAMING:
            parts += (b"\r\n", name, b": ", value)
            breaks += 1
    parts.append(b"\r\ncontent-length: %d\r\n\r\n" % length)
    head = b"".join(parts)
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head or b" " in path:
        raise InvalidRequest("A header must not contain line breaks or NUL bytes.", code="invalid_header")
    return head
