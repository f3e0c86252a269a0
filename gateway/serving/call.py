"""A request for the data plane as it came in, and the way its answer goes back. It knows HTTP's framing, no models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Protocol
from uuid import uuid4

import msgspec
from uvicorn.protocols.http.flow_control import FlowControl

from gateway.errors import GatewayError

Header = tuple[bytes, bytes]

_STATUS = {one.value: b"HTTP/1.1 %d %b\r\n" % (one.value, one.phrase.encode()) for one in HTTPStatus}
_OK = _STATUS[200]
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Clients must bear it whenever it comes, and most bear no other interim answer."""


class Line(Protocol):
    """What a call needs of its connection. `date`: rendered headers that every answer carries."""

    flow: FlowControl
    transport: asyncio.Transport

    @property
    def date(self) -> bytes: ...

    def write(self, data: bytes) -> None: ...

    def finished(self, *, keep: bool) -> None: ...


class Call(msgspec.Struct):
    """`headers` have lower-case names (of two of one name, the last); `body` is whole. `chunks`: HTTP/1.1, not 1.0.
    `refusal`: what is wrong with it as HTTP, to be answered instead of serving it. `gone`: the client left, and `task`
    was cancelled for it.

    Answer it with `reply`, or with `begin` and then `write` to the `last`. `headers` there are rendered lines.
    """

    _line: Line
    method: str
    path: str
    headers: Mapping[bytes, bytes]
    chunks: bool
    keep: bool
    body: bytes = b""
    refusal: GatewayError | None = None
    task: asyncio.Task[None] | None = None
    gone: bool = False
    over: bool = False
    """The answer has been written to its end."""
    _begun: bool = False
    _head: bytes = b""
    """Of an answer begun, until it leaves."""

    def reply(self, body: bytes, headers: bytes, status: int = 200) -> None:
        """The whole answer, at once."""
        line, self.over = self._line, True
        start = _OK if status == 200 else _STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status
        close = b"" if self.keep else b"connection: close\r\n"
        head = b"%b%b%bcontent-length: %d\r\n%b\r\n" % (start, line.date, headers, len(body), close)
        line.write(head if self.method == "HEAD" else head + body)
        line.finished(keep=self.keep)

    def refuse(self, error: GatewayError, identity: bytes = b"", body: bytes | None = None) -> None:
        """Answer with an error, in OpenAI's words unless `body` has others. `identity`: the headers that name it."""
        own = [header for header in error.headers() if header[0] != b"content-length"]
        self.reply(body or error.body(), rendered(own) + (identity or request_id()), error.status)

    def begin(self, headers: bytes) -> None:
        """The head of an answer whose length is not known yet. It leaves with the first piece: one write is one system
        call."""
        if not self.chunks:
            self.keep = False  # HTTP/1.0: the end of the connection is the end of the answer
        self._begun = True
        framing = b"transfer-encoding: chunked\r\n" if self.chunks else b""
        close = b"" if self.keep else b"connection: close\r\n"
        self._head = b"%b%b%b%b%b\r\n" % (_OK, self._line.date, headers, framing, close)

    def write(self, piece: bytes, last: bool = False) -> None:
        """A piece of the answer begun. Not empty, unless it is the last."""
        head, self._head = self._head, b""
        if not last and self.chunks:  # the usual one
            if not self.gone:
                self._line.transport.write(b"%b%x\r\n%b\r\n" % (head, len(piece), piece))
            return
        if self.chunks:
            piece = (b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b"") + (b"0\r\n\r\n" if last else b"")
        self._line.write(head + piece)
        if last:
            self.over = True
            self._line.finished(keep=self.keep)

    def pass_on(self, piece: bytes, chunk: bytes) -> None:
        """Like `write`, for a piece that is there as a chunk of HTTP/1.1 already."""
        if not self.chunks:
            self._line.write(piece)
        elif not self.gone:
            self._line.transport.write(chunk)

    @property
    def descriptor(self) -> int | None:
        """The client's socket, where chunks may be written to it as they are."""
        transport = self._line.transport
        if not self.chunks or self.gone or transport.get_extra_info("sslcontext") is not None:
            return None
        socket = transport.get_extra_info("socket")
        return None if socket is None else socket.fileno()

    @property
    def waiting(self) -> Callable[[], int]:
        """How many bytes the client's socket has not taken yet."""
        return self._line.transport.get_write_buffer_size

    def spill(self, rest: bytes) -> None:
        """The rest of a chunk, of which the socket has taken a part already."""
        if not self.gone:
            self._line.transport.write(rest)

    @property
    def flow(self) -> FlowControl:
        """Says whether the client reads."""
        return self._line.flow

    @property
    def blocked(self) -> bool:
        """The client reads slower than we write: `drain` before the next piece."""
        return self._line.flow.write_paused

    async def drain(self) -> None:
        """Wait until the client has read most of what was written (or has left, which cancels the task)."""
        await self._line.flow.drain()

    def probe(self) -> None:
        """Say something that means nothing: who has left answers it with a reset."""
        if self._begun:
            self.write(b":\n\n")  # a comment between two events
        elif self.chunks:
            self._line.write(CONTINUE)

    def leave(self) -> None:
        """Called by the connection: there is nobody to answer."""
        self.gone = True
        if self.task is not None:
            self.task.cancel()


def request_id() -> bytes:
    """A name for a request that never came to have one, rendered."""
    return b"x-request-id: %b\r\n" % uuid4().hex.encode()


def rendered(headers: Iterable[Header]) -> bytes:
    """Headers as lines, each with its end."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
