"""Where OpenTelemetry is sent in the comparison: takes every OTLP export over HTTP, counts its bytes, keeps nothing.

python -m loadtests.peers.sink      prints its URL; GET / tells {"exports": n, "bytes": n}
"""

from __future__ import annotations

import asyncio
import json
from typing import cast

import httptools
import uvloop


class Sink(asyncio.Protocol):
    """One exporter's connection."""

    exports = 0
    taken = 0
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        Sink.taken += len(body)

    def on_message_complete(self) -> None:
        if self.parser.get_method() == b"POST":
            Sink.exports += 1
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
            )
            return
        told = json.dumps({"exports": Sink.exports, "bytes": Sink.taken}).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
        self.transport.write(b"content-length: %d\r\n\r\n%b" % (len(told), told))


async def serve() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
