"""One stream on its way through: the engine's pieces in, whole events out to the client, in one call for each piece.

It runs in the engine connection's callback and waits for nothing; whoever relays waits for what it says (`over`).
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.engine.base import Way
from gateway.errors import EngineFailed, GatewayError
from gateway.serving.exchange import MOST_KEPT, Exchange


class Relay:
    """`begin` is called before the first event leaves. `over`: nothing more is to be taken, because the stream is
    complete or because of `error`.
    """

    __slots__ = ("_begin", "_begun", "_call", "_events", "_feed", "_flow", "error", "over", "pieces")

    def __init__(self, exchange: Exchange, begin: Callable[[], None]) -> None:
        request = exchange.request
        assert request is not None  # there is an answer to it
        self._events = exchange.events = request.events(exchange, keep=MOST_KEPT if exchange.keeps else 0)
        self._feed, self._flow = self._events.feed, exchange.call.flow
        self._call, self._begin, self._begun = exchange.call, begin, False
        self.pieces = 0
        self.over = False
        self.error: GatewayError | None = None

    def take(self, piece: bytes, chunk: bytes | None = None) -> bool:
        """Pass on what there is. False: wait until the client has read, or stop if it is `over`."""
        try:
            out = self._feed(piece)
        except GatewayError as error:
            self.over, self.error = True, error
            return False
        events = self._events
        if out is piece and chunk is not None and self._begun and not events.done:  # all of it goes on, as it came
            self.pieces += 1
            self._call.pass_on(piece, chunk)
            return not self._flow.write_paused
        if out:
            if not self._begun:
                self._begun = True
                self._begin()
            self.pieces += 1
            self._call.write(out, events.done)
        if events.done or events.error is not None:
            self.over = True
            if not events.done:
                self.error = EngineFailed("The engine failed in the middle of its answer.")
            return False
        return not self._flow.write_paused

    # What passes by (`gateway.engine.base.Shortcut`).

    def way(self) -> Way | None:
        """From the first event on, to a client of HTTP/1.1, while no event is half here."""
        events = self._events
        if self.over or not self._begun or not events.ends or not events.whole:
            return None
        to = self._call.descriptor
        return None if to is None else Way(to, self._call.waiting, events.ends, events.kept, events.keep)

    def passed(self, pieces: int, last: bytes, keep: int) -> None:
        self.pieces += pieces
        self._events.last, self._events.keep = last, keep

    def spilled(self, rest: bytes) -> bool:
        self._call.spill(rest)
        return not self._flow.write_paused
