"""A call from within this process: through the same door and by the same rules as one from a socket, and its answer
comes as pieces. It knows no models, and nobody's key: whoever calls brings one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl

from gateway.serving.call import CONTINUE, Call

MOST_WAITING = 64 * 1024
"""Bytes that nobody has taken yet, beyond which the engine is not read any more."""


class Serves(Protocol):
    """As `Door`."""

    async def serve(self, call: Call) -> None: ...


class Reply:
    """An answer: `status` and `headers` (names in lower case) are there, `pieces` come as the engine sends them; those
    of a stream are whole events, one or more."""

    def __init__(self, line: _Line, head: bytes, rest: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        self._line, self._rest = line, rest

    async def pieces(self) -> AsyncIterator[bytes]:
        """To be read once, to the end."""
        if self._rest:
            yield self._rest
        while (piece := await self._line.take()) is not None:
            yield piece

    async def read(self) -> bytes:
        """All of it."""
        return b"".join([piece async for piece in self.pieces()])


@asynccontextmanager
async def asked(door: Serves, path: str, headers: Mapping[bytes, bytes], body: bytes) -> AsyncIterator[Reply]:
    """POST to a path of the data plane. Leaving the block early is a client that hangs up."""
    line = _Line()
    call = Call(line, "POST", path, headers, chunks=False, keep=False, body=body)
    try:
        async with asyncio.TaskGroup() as group:
            call.task = group.create_task(door.serve(call))
            try:
                yield await line.head()
            finally:
                if not call.over:
                    call.leave()
    except BaseExceptionGroup as raised:
        raise raised.exceptions[0] from None  # the block's own: the door turns whatever goes wrong into an answer


class _Line:
    """What a call writes to, in place of a connection."""

    date = b""

    def __init__(self) -> None:
        self.transport = asyncio.Transport()  # never written to: an answer that is not chunked goes by `write`
        self.flow = FlowControl(self.transport)
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._arrived = asyncio.Event()
        self._over = False

    def write(self, data: bytes) -> None:
        if data and data != CONTINUE:
            self._waiting.append(data)
            self._size += len(data)
        if self._size > MOST_WAITING:
            self.flow.pause_writing()
        self._arrived.set()

    def finished(self, *, keep: bool) -> None:
        self._over = True
        self._arrived.set()

    async def head(self) -> Reply:
        """The beginning of the answer."""
        first = await self.take() or b"HTTP/1.1 500 \r\n\r\n"
        head, _, rest = first.partition(b"\r\n\r\n")
        return Reply(self, head, rest)

    async def take(self) -> bytes | None:
        """The next piece; None after the last."""
        while not self._waiting:
            if self._over:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        piece = self._waiting.popleft()
        self._size -= len(piece)
        if self._size <= MOST_WAITING // 2:
            self.flow.resume_writing()
        return piece
