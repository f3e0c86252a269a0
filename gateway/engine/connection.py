"""One HTTP/1.1 connection to an engine, on asyncio.Protocol and httptools: it writes a request, feeds the parser and
watches the deadline.

It is on the path of every request, so: one parser and one timer per connection (not per request), no task, no lock.
It knows nothing of models, JSON or SSE: bytes in, a head and the body's bytes out, into a `Reply`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from gateway.engine.reply import Reply
from gateway.errors import EngineFailed, EngineTimeout, GatewayError, UpstreamBroken
from gateway.heads import Heads, cut

if TYPE_CHECKING:
    from gateway.engine._lane import Lane, Ride

KEEP_SECONDS = 4.0
"""How long an idle connection is kept. uvicorn, and so vLLM (VLLM_HTTP_TIMEOUT_KEEP_ALIVE), closes its end after 5."""

HIGH_WATER = 256 * 1024
"""Bytes of a body that may wait for a slow reader; beyond it the socket is not read, and the engine feels it."""

PIECE = 64 * 1024
"""Bytes of a request handed to the transport at once; the next piece follows when the socket has taken this one."""

_BEGINS = {len(b"%x" % size) + size + 4: b"%x\r\n" % size for size in range(1, 4096)}
"""How a chunk begins that is so many bytes long from the first of its size to the end of the line after it."""

_SIZED = (b"content-length", b"transfer-encoding")
_BODILESS = (204, 304)
_NOT_HTTP = (httptools.HttpParserError, httptools.HttpParserUpgrade)
HEAD_LIMIT = 64 * 1024
"""Bytes of an answer in a row that carry no body: its head, the extensions of its chunks, its trailers."""

BODY_LIMIT = 128 * 1024 * 1024
"""Bytes of a body that `read` gathers. 8 answers of 8000 tokens with 20 logprobs each come to about 128 MB."""


class Pool(Protocol):
    """What a connection needs of its owner. Times in seconds; `soonest` is the least of them."""

    first_byte: float
    idle: float
    total: float
    soonest: float
    heads: Heads[list[tuple[bytes, bytes]]]
    lane: Lane | None

    def give(self, connection: Connection) -> None: ...

    def forget(self, connection: Connection) -> None: ...


# long because: a connection is one state, and its callbacks share all of it.
class Connection(asyncio.Protocol):
    """One socket to the engine, and at most one unfinished answer on it."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)  # until connection_made
        self._reply: Reply | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._rest = memoryview(b"")  # what is still to be written of the request
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._first_by = self._total_by = inf
        self._idle_since = 0.0
        self._writable, self.lost = True, False
        self._paused = self._interim = self._in_head = self._to_the_end = self._complete = self._keep = False
        self._between = False  # the parser stands exactly between two chunks of a stream
        self._ride: Ride | None = None  # on the lane, which reads instead of the transport then
        self._bare_bytes = self.uses = 0
        self._begins = b""  # what the present answer began with
        self.heard = False  # a byte of the present answer was seen: no retry any more

    def start(self, head: bytes, body: bytes, *, seconds: float | None) -> Reply:
        """Begin an exchange; the caller waits for the reply's `status` (or `error`)."""
        self._reply = reply = Reply(self._loop, self)
        self.heard = False
        self.uses += 1
        now, pool = self._loop.time(), self._pool
        self._first_by, self._total_by = now + (seconds or pool.first_byte), now + (seconds or pool.total)
        look = now + (pool.soonest if seconds is None else min(seconds, pool.soonest))
        if self._timer_at > look:
            self._arm(look)
        if len(head) + len(body) <= PIECE:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._rest = memoryview(body)
            self._pump()
        return reply

    def _pump(self) -> None:
        while self._writable and self._rest:
            piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
            self._transport.write(piece)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pump()

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        if reply is None:  # nobody asked
            self.drop()
            return
        if self._between and reply.sink is not None:
            # The usual piece of a stream is one chunk, written in the usual way. The parser stands before it and need
            # not see it: it stands before the next one then.
            begins = _BEGINS.get(len(data))
            if begins is not None and data.startswith(begins) and data.endswith(b"\r\n"):
                reply.pass_chunk(data[len(begins) : -2], data)
                return
        self._between = False
        if not self.heard:
            if self._is_known(data, reply):
                return
            self._begins, self._headers, self._bare_bytes = data, [], 0
            self._complete = self._interim = False
            self._in_head = self._to_the_end = True  # a body without a size ends with the connection
        self.heard = True
        size = reply.size
        try:
            self._parser.feed_data(data)
        except _NOT_HTTP:
            if not self._complete:
                broken = UpstreamBroken if reply.status else EngineFailed
                self.fail(broken("The engine's answer is not valid HTTP."))
                return
            self._keep = False  # the answer is whole; what came after it is not our business
        if self._complete:
            self._finish()
        else:
            self._after_parsing(data, reply, bare=reply.size == size)

    def _after_parsing(self, data: bytes, reply: Reply, *, bare: bool) -> None:
        if bare:  # no body in it: it keeps nobody from calling the engine silent
            self._bare_bytes += len(data)
            if self._bare_bytes > HEAD_LIMIT:
                broken = UpstreamBroken if reply.status else EngineFailed
                self.fail(broken("The engine's answer has an endless head or endless framing."))
        else:
            # Empty lines end an event, then comes what ends a chunk: no line of a chunk's size looks like that, nor the
            # middle of a body, whose last two bytes would belong to the piece.
            self._between = not self._bare_bytes and data.endswith(b"\n\n\r\n") and reply.parts[-1].endswith(b"\n\n")
            self._bare_bytes = 0
            self._after_piece(reply)

    def _is_known(self, data: bytes, reply: Reply) -> bool:
        """The usual answer: it came whole, and its head has been read before, but for its length."""
        found = cut(data)
        if found is None:
            return False
        remains, begin, length = found
        headers = self._pool.heads.get(remains)
        if headers is None or len(data) - begin != length:
            return False
        self.heard = self._complete = self._keep = True
        self._in_head = self._to_the_end = False
        reply.headers, reply.status = headers, 200
        if length:
            reply.parts.append(data[begin:])
            reply.size = length
        self._finish()
        return True

    def _after_piece(self, reply: Reply) -> None:
        if reply.whole:
            reply.quiet_since = self._loop.time()
            if reply.size > BODY_LIMIT:
                self.fail(EngineFailed("The engine's answer is longer than the gateway takes."))
            return
        if reply.sink is not None:
            reply.pass_on()
            self.board()
        else:
            reply.wake()
        if reply.size > HIGH_WATER and not self._paused:  # nobody took it
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.alight()
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reply is not None and self._reply.status and self._to_the_end and exc is None:
            self._reply.open_ended = True
            self._finish()
        elif self._reply is not None:
            self.fail(UpstreamBroken("The engine closed the connection before its answer was complete."))
        self._pool.forget(self)
        del self._parser  # it knows our methods: without the cycle a connection's memory is free at once

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # a second answer to one request: finish the first, then drop the connection

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else: a trailer
            name = name.lower()
            if name in _SIZED:
                self._to_the_end = False
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        reply, status = self._reply, self._parser.get_status_code()
        if reply is None or self._complete:
            return
        if status < 200:
            if status < 100 or status == 101:  # we asked for no other protocol
                raise ValueError(status)
            self._interim = True
            self._to_the_end, self._headers = True, []
            self._begins = b""  # the head of something else
            return
        self._in_head = False
        # A body where none may be: whatever comes, it is not ours to tell it from a next answer.
        self._keep = self._parser.should_keep_alive() and (self._to_the_end or status not in _BODILESS)
        reply.headers = self._headers
        reply.status = status
        reply.wake()
        begins, self._begins = self._begins, b""
        if status == 200 and self._keep and begins and self._sized_once() and (found := cut(begins)):
            self._pool.heads.keep(found[0], self._headers)

    def _sized_once(self) -> bool:
        names = [name for name, _ in self._headers]
        return names.count(b"content-length") == 1 and b"transfer-encoding" not in names

    def on_body(self, body: bytes) -> None:
        reply = self._reply
        if reply is not None and not self._complete:
            self._first_by = inf
            reply.parts.append(body)
            reply.size += len(body)

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self._complete = True

    # How an answer ends.

    def _finish(self) -> None:
        """The answer is whole: hand it over and go back to the pool, if both sides are done."""
        self.alight()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.detach(None)
        if not self._keep or self._rest or self.lost or self._transport.get_write_buffer_size():
            self.drop()
            return
        self.resume()
        self._idle_since = self._loop.time()
        if self._timer_at > self._idle_since + KEEP_SECONDS:
            self._arm(self._idle_since + KEEP_SECONDS)
        self._pool.give(self)

    def fail(self, error: GatewayError) -> None:
        """The answer will not become whole: say so to its reader and cut the connection."""
        self.alight()  # while it is known whose it was
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.detach(error)
        self.drop()

    def drop(self) -> None:
        """Cut the connection now, if it ever was made. The engine sees it and stops generating."""
        self._rest = memoryview(b"")
        self.alight()
        if not self.lost and self._transport is not None:
            self._transport.abort()
        self._pool.forget(self)

    def resume(self) -> None:
        """Read on, if a slow reader had stopped us."""
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    @property
    def usable(self) -> bool:
        return not self.lost and not self._transport.is_closing()

    # The lane.

    def board(self) -> None:
        """Onto the lane, if there is one and this is the moment: between two chunks of a stream that has a way."""
        reply, lane = self._reply, self._pool.lane
        if lane is None or reply is None or reply.shortcut is None or reply.sink is None:
            return
        if not self._between or self._ride is not None or self._paused or not self.usable:
            return
        way = reply.shortcut.way()
        if way is not None:
            source = self._transport.get_extra_info("socket").fileno()
            with suppress(OSError):  # too many descriptors are open: the ordinary way takes no further ones
                self._ride = lane.enter(self, source, *way)
                self._transport.pause_reading()

    def strayed(self, data: bytes, spilled: bool) -> None:
        """Called by the lane with what it does not pass on: what came, nothing if no more will come, or (`spilled`) the
        rest of a chunk that the client's socket did not take."""
        ride, reply = self._ride, self._reply
        if ride is None or reply is None:
            return
        self._account(ride)
        if spilled:
            reply.spill(data)
        elif data:
            self.data_received(data)
        else:
            self.alight()  # the transport finds out why
        if self._ride is ride and self._between and reply.sink is not None and reply.shortcut is not None:
            way = reply.shortcut.way()
            if way is not None:
                ride.keep, ride.open = way.keep, True

    def alight(self) -> None:
        """Off the lane, if on it: the transport reads again."""
        ride, self._ride = self._ride, None
        if ride is None:
            return
        ride.leave()
        self._account(ride)
        if not self._paused and self.usable:
            self._transport.resume_reading()

    def _account(self, ride: Ride) -> None:
        reply = self._reply
        if ride.pieces and reply is not None and reply.shortcut is not None:
            reply.quiet_since = max(reply.quiet_since, ride.since)
            reply.shortcut.passed(ride.pieces, ride.last, ride.keep)
            ride.pieces = 0

    # The one timer.

    def _arm(self, at: float) -> None:
        """Look again at `at`. Whoever finds the timer set to an earlier time leaves it so: it will find nothing to do
        and set itself anew, which is cheaper than a timer per request."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer_at = inf
        now = self._loop.time()
        deadline, error = self._deadline(now)
        if deadline > now:
            self._arm(min(deadline, now + self._pool.idle))  # by then another deadline may hold
        elif error is None:
            self.drop()
        else:
            self.fail(EngineTimeout(error))

    def _deadline(self, now: float) -> tuple[float, str | None]:
        reply, idle = self._reply, self._pool.idle
        if reply is None:
            return self._idle_since + KEEP_SECONDS, None
        if self._first_by < inf:
            return min(self._first_by, self._total_by), "The engine did not begin its answer in time."
        # While nobody waits for the engine, a slow client is what takes the time: only the total counts.
        heard = reply.quiet_since if self._ride is None else max(reply.quiet_since, self._ride.since)
        quiet_by = (now if heard == inf else heard) + idle
        if quiet_by < self._total_by:
            return quiet_by, f"The engine fell silent for {idle:g} s in the middle of its answer."
        return self._total_by, "The engine did not finish its answer in time."
