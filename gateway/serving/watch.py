"""Ends a request whose client left, never finishes its body, or stopped reading. It knows nothing of what is served.

uvicorn's `send` returns silently after a disconnect, so somebody has to wait for it in `receive` (FACTS §3). That takes
a task; requests that are over within `WATCH_AFTER` never get one.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from gateway.serving.wire import Receive

WATCH_AFTER = 0.25
BODY_SECONDS = 30.0


class Ending(Enum):
    """Why a request was ended from outside."""

    LEFT = "the client closed its connection"
    SLOW = "the body did not arrive in time"
    STALLED = "the client stopped reading"


class Watch:
    """Of one request, begun in the request's own task, which it cancels when `ending` is set.

    Call `body_read()` once the body is here (from then on `receive` belongs to the watch), set `sending` around a send
    that may block and count `sent`, and call `end()` in `finally`.
    """

    __slots__ = (
        *("_group", "_late", "_loop", "_over", "_read", "_receive", "_seen", "_stall", "_task", "_timer", "_watcher"),
        *("ending", "sending", "sent"),
    )

    def __init__(self, group: asyncio.TaskGroup, receive: Receive, *, stall_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._group, self._receive, self._stall = group, receive, stall_seconds
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._read = self._late = self._over = False
        self._seen = -1
        self.ending: Ending | None = None
        self.sending = False
        self.sent = 0
        self._timer = self._loop.call_later(WATCH_AFTER, self._tick)

    def body_read(self) -> None:
        self._read = True
        if self._late:
            self._timer.cancel()
            self._tick()

    def end(self) -> None:
        """The request is over, whatever happens to its connection now."""
        self._over = True
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _tick(self) -> None:
        if not self._read:
            if self._late:
                self._cancel(Ending.SLOW)
            else:
                self._late = True
                self._timer = self._loop.call_later(BODY_SECONDS - WATCH_AFTER, self._tick)
            return
        if self._watcher is None:
            self._watcher = self._group.create_task(self._wait())
        if self.sending and self._seen == self.sent:
            self._cancel(Ending.STALLED)
            return
        self._seen = self.sent if self.sending else -1
        self._timer = self._loop.call_later(self._stall, self._tick)

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel(Ending.LEFT)

    def _cancel(self, ending: Ending) -> None:
        # uvicorn says "disconnect" after a complete answer too; by then the request is over.
        if not self._over and self._task is not None:
            self.ending = ending
            self._over = True
            self._task.cancel()
