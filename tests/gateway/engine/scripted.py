"""An upstream that does exactly what a test says: `async with scripted(path, script)` listens on a Unix socket.

`script` is called for each connection with its number (from 0), a reader and a writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from gateway.engine.upstream import Upstream
from gateway.settings import TimeoutSettings

Script = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def take_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one request: (head, body)."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b"0")
    return head, await reader.readexactly(int(length))


@asynccontextmanager
async def scripted(
    directory: Path,
    script: Script,
    *,
    timeouts: TimeoutSettings | None = None,
    tcp: bool = False,
    max_connections: int = 2048,
) -> AsyncIterator[Upstream]:
    """A pool on the scripted upstream. `tcp`: on a port, not on a Unix socket."""
    numbers = iter(range(10**6))

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await script(next(numbers), reader, writer)
        finally:
            writer.transport.abort()

    path = directory / "upstream.sock"
    if tcp:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(accept, path)
        url = f"unix:{path}"
    timeouts = timeouts or TimeoutSettings(connect=2, first_byte=5, idle=5, total=20)
    upstream = Upstream(url, timeouts=timeouts, max_connections=max_connections)
    try:
        yield upstream
    finally:
        await upstream.aclose()
        server.close()
        path.unlink(missing_ok=True)


async def get(upstream: Upstream) -> bytes:
    """The whole body of one answer."""
    reply = await upstream.send(b"/x", ())
    try:
        return await reply.read()
    finally:
        reply.close()
