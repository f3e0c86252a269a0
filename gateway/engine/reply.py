"""One answer of an engine, on its way: what `base.Answer` promises.

It holds the body itself, so its connection is free for another request as soon as the last byte is in. One future per
wait, and none where bytes are already here.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import Protocol

import msgspec

from gateway.engine.base import Headers, Shortcut, Sink
from gateway.errors import GatewayError, UpstreamBroken


class Source(Protocol):
    """What an answer needs of its connection."""

    def resume(self) -> None: ...

    def board(self) -> None: ...

    def alight(self) -> None: ...

    def fail(self, error: GatewayError) -> None: ...


class Reply(msgspec.Struct):
    """One answer of the engine. See `base.Answer` for the contract; `headers` has lower-case names."""

    _loop: asyncio.AbstractEventLoop
    _connection: Source | None
    parts: list[bytes] = []
    """Of the body, not yet taken. The connection adds to them."""
    _waiter: asyncio.Future[None] | None = None
    sink: Sink | None = None
    """Who takes the pieces as they come, if somebody does."""
    shortcut: Shortcut | None = None
    """Past whom they may go, while there is a sink."""
    status: int = 0
    """0 until the head is complete."""
    headers: Headers = ()
    size: int = 0
    """Bytes in `parts`."""
    whole: bool = False
    """`read` was called: nobody wants to hear of single pieces."""
    done: bool = False
    open_ended: bool = False
    error: GatewayError | None = None
    quiet_since: float = inf
    """When the reader began to wait, or the last byte came; inf: nobody waits."""

    async def chunk(self) -> bytes:
        """The next piece of the body as it came; b"" at its end."""
        while not self.parts:
            if self.error is not None:
                raise self.error
            if self.done:
                return b""
            await self.wait()
        parts, self.parts, self.size = self.parts, [], 0
        if self._connection is not None:
            self._connection.resume()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def pour(self, sink: Sink, shortcut: Shortcut | None = None) -> bool:
        """Give every piece to `sink` as it comes, in the connection's own callback: a piece then wakes no task.

        Returns True at the body's end, False as soon as the sink said so; then call it again to go on. What comes in
        between is kept, and beyond HIGH_WATER not read. Raises as `chunk` does. `sink` must not raise. Where there is a
        lane, usual pieces take the `shortcut`.
        """
        while True:
            if self.parts and not sink(await self.chunk(), None):
                return False
            if self.error is not None:
                raise self.error
            if self.done:
                return True
            self.sink, self.shortcut = sink, shortcut
            if shortcut is not None and self._connection is not None:
                self._connection.board()
            try:
                await self.wait()
            finally:
                if self._connection is not None:
                    self._connection.alight()
                open_still, self.sink, self.shortcut = self.sink is not None, None, None
            if not open_still:
                return False

    def pass_on(self) -> None:
        """Called by the connection when more came while a sink is there."""
        parts = self.parts
        piece = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.size = 0
        self.pass_chunk(piece, None)

    def pass_chunk(self, piece: bytes, chunk: bytes | None) -> None:
        """The same for a piece that is in nobody's `parts`."""
        self.quiet_since = self._loop.time()
        if self.sink is not None and not self.sink(piece, chunk):
            self.sink = None
            self.wake()

    def spill(self, rest: bytes) -> None:
        """The client's socket did not take this rest of a chunk that took the shortcut."""
        self.quiet_since = self._loop.time()
        if self.shortcut is not None and not self.shortcut.spilled(rest):
            self.sink = None
            self.wake()

    async def read(self) -> bytes:
        """The whole body (what `chunk` has not given out yet)."""
        self.whole = True
        if self._connection is not None:
            self._connection.resume()
        while not self.done:
            if self.error is not None:
                raise self.error
            await self.wait()
        body, self.parts, self.size = b"".join(self.parts), [], 0
        return body

    def close(self) -> None:
        """Give the answer up. If it is unfinished the connection is aborted at once, and the engine drops its work."""
        if self._connection is not None:
            self._connection.fail(UpstreamBroken("The answer was given up before its end."))

    async def wait(self) -> None:
        """Sleep until something happened: the head, a piece, the end or an error."""
        self._waiter = waiter = self._loop.create_future()
        self.quiet_since = self._loop.time()
        try:
            await waiter
        finally:
            self._waiter = None
            self.quiet_since = inf

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def detach(self, error: GatewayError | None) -> None:
        """The connection is done with this answer, well (`None`) or badly."""
        self._connection = None
        self.done, self.error = error is None, error
        self.wake()
