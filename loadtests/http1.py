"""One keep-alive connection of a load-testing client: writes a request, reads its answer or stream, notes the times.

`asyncio.Protocol` and httptools; callbacks only, no task and no future per request. It takes in any slicing of the
bytes. It knows nothing of schedules: whoever owns the connection is told when a request has ended.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import Protocol, cast

import httptools

from loadtests.asks import Ask
from loadtests.samples import Problem

_TOKEN = re.compile(rb'"(?:content|text)": ?"(?!")')
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_NAMES = re.compile(rb'"model": ?"([^"]*)"')
SLOW_SECONDS = 0.5
"""A slow reader takes what is there, then looks away for so long."""
NOTHING = float("nan")


class Owner(Protocol):
    """Who connections belong to."""

    def ended(self, connection: Connection, problem: Problem) -> None:
        """The request that was under way has ended; the connection may be used again if it is `open`."""
        ...

    def lost(self, connection: Connection) -> None:
        """The connection is gone, whoever closed it; comes after `ended`."""
        ...


class Connection(asyncio.Protocol):
    """At most one request at a time. After its end its figures stay readable until the next `begin`."""

    transport: asyncio.Transport

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.open = False
        self.ask: Ask | None = None
        self.number = -1
        self.tokens = self.status = 0
        self.intended = self.sent = self.first = self.last = self.end = NOTHING
        self.gaps: list[float] = []
        """(moment, seconds) in turn, of the request under way"""
        self.inference = self.adapter = b""
        self._rest = b""
        self._done = self._error = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self.loop = asyncio.get_running_loop()
        self.open = True
        self.parser = httptools.HttpResponseParser(self)

    def begin(self, ask: Ask, number: int, intended: float) -> None:
        """Send a request that should have begun at `intended` (monotonic)."""
        self.ask, self.number, self.intended = ask, number, intended
        self.tokens = self.status = 0
        self.first = self.last = self.end = NOTHING
        self.gaps.clear()
        self.inference = self.adapter = self._rest = b""
        self._done = self._error = False
        self.sent = monotonic()
        self.transport.write(ask.wire)

    def data_received(self, data: bytes) -> None:
        if self.ask is None:  # an answer that nobody asked for
            self.transport.abort()
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._finish(Problem.CUT)
            return
        ask = self.ask
        if ask is not None and ask.reads != "fast":
            self.transport.pause_reading()
            if ask.reads == "slow":
                self.loop.call_later(SLOW_SECONDS, self._read_on)
            else:
                self.loop.call_later(max(0.0, self.sent + ask.held - monotonic()), self._give_up, self.number)

    def connection_lost(self, _: Exception | None) -> None:
        self.open = False
        self._finish(Problem.CUT)
        self.owner.lost(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name[:2] in (b"x-", b"X-"):
            lower = name.lower()
            if lower == b"x-inference-id":
                self.inference = value
            elif lower == b"x-adapter":
                self.adapter = value

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        now = monotonic()
        ask = self.ask
        if ask is None:
            return
        if not ask.stream or self.status != 200:
            if self.first != self.first:  # not a number yet
                self.first = now
            self.last = now
            return
        text = self._rest + body if self._rest else body
        # The pattern looks at every byte: 60 µs for a chunk of 4 kB, 100 times what a plain split takes.
        *events, self._rest = _EVENT_END.split(text) if b"\r" in text else text.split(b"\n\n")
        for event in events:
            self._event(event, now)

    def _event(self, event: bytes, now: float) -> None:
        if _TOKEN.search(event):
            self.tokens += 1
            if self.tokens == 1:
                self.first = now
            else:
                self.gaps += (now, now - self.last)
            self.last = now
        elif event.endswith(b"[DONE]"):
            self._done = True
        elif b'"error"' in event:
            self._error = True
        self.seen(event)

    def seen(self, event: bytes) -> None:
        """For those that look closer."""

    def on_message_complete(self) -> None:
        if self.status < 200:  # 1xx: the answer is still to come
            return
        ask = self.ask
        if not 200 <= self.status < 300:
            problem = Problem.REFUSED
        elif ask is not None and ask.stream and (self._error or not self._done):
            problem = Problem.ERROR_EVENT if self._error else Problem.INCOMPLETE
        else:
            problem = self.judged()
        if not self.parser.should_keep_alive():
            self.hang_up()
        self._finish(problem)

    def judged(self) -> Problem:
        """Of an answer that came whole."""
        return Problem.NONE

    def hang_up(self) -> None:
        """Close after a request."""
        if self.open:
            self.open = False
            self.transport.close()

    def stop(self, problem: Problem) -> None:
        """Hang up on the request under way."""
        self._finish(problem)

    def _read_on(self) -> None:
        if self.open:
            self.transport.resume_reading()

    def _give_up(self, number: int) -> None:
        if self.ask is not None and self.number == number:
            self._finish(Problem.GAVE_UP)

    def _finish(self, problem: Problem) -> None:
        if self.ask is None:
            return
        self.ask, self.end = None, monotonic()
        if problem not in (Problem.NONE, Problem.REFUSED, Problem.INCOMPLETE, Problem.CHANGED):
            self.open = False
            self.transport.abort()
        self.owner.ended(self, problem)  # which may begin the next one right here


class NamingConnection(Connection):
    """Also looks at which model every event of a stream names: it must be one."""

    def begin(self, ask: Ask, number: int, intended: float) -> None:
        self.models: set[bytes] = set()
        super().begin(ask, number, intended)

    def seen(self, event: bytes) -> None:
        if found := _NAMES.search(event):
            self.models.add(found[1])

    def judged(self) -> Problem:
        return Problem.CHANGED if len(self.models) > 1 else Problem.NONE
