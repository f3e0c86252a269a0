"""The floor: a proxy that does nothing but pass requests on, on the stack that the gateway stands on.

    python -m loadtests.peers.bare --port 9200 --upstream http://127.0.0.1:9100

Raw ASGI under uvicorn, uvloop, httptools, and a pooled client on `asyncio.Protocol`. A yardstick, not a design: it has
no timeouts, no errors, no back-pressure and no limits.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

import httptools
import uvicorn

from loadtests.asks import Address
from loadtests.descriptors import raise_limit

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class Upstream(asyncio.Protocol):
    """One connection to the engine; `pieces` of the answer wake who waits in `more`."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.open = True
        self.waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.open, self.ended = False, True
        self._wake()

    def ask(self, request: bytes) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.status, self.ended = 0, False
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-type", b"content-length"):
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.ended = True

    async def more(self) -> None:
        """Wait for bytes."""
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter

    def taken(self) -> bytes:
        """What has come since the last look."""
        pieces, self.pieces = self.pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Bare:
    """The application."""

    def __init__(self, upstream: Address) -> None:
        self.upstream = upstream
        self.idle: list[Upstream] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        upstream = await self._connection()
        head = b"POST %b HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        upstream.ask(head % (scope["raw_path"], len(body)) + body)
        while not upstream.status:
            await upstream.more()
        await send({"type": "http.response.start", "status": upstream.status, "headers": upstream.headers})
        while not upstream.ended:
            if upstream.pieces:
                await send({"type": "http.response.body", "body": upstream.taken(), "more_body": True})
            else:
                await upstream.more()
        await send({"type": "http.response.body", "body": upstream.taken()})
        self.idle.append(upstream)

    async def _connection(self) -> Upstream:
        while self.idle:
            if (one := self.idle.pop()).open:
                return one
        loop = asyncio.get_running_loop()
        if self.upstream.uds:
            return (await loop.create_unix_connection(Upstream, self.upstream.uds))[1]
        return (await loop.create_connection(Upstream, self.upstream.host, self.upstream.port))[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.peers.bare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    told = parser.parse_args()
    raise_limit()
    app = Bare(Address.parse(told.upstream))
    stack: dict[str, Any] = {"loop": "uvloop", "http": "httptools", "lifespan": "off"}
    uvicorn.run(app, host="127.0.0.1", port=told.port, access_log=False, log_level="warning", **stack)


if __name__ == "__main__":
    main()
