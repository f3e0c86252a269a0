"""Ends a request whose client left, never finishes its body, or stopped reading. It knows nothing of what is served.

uvicorn's `send` returns silently after a disconnect, so somebody has to wait for it in `receive` (FACTS §3). That takes
a task; requests that are over within a sweep never get one, and one timer serves all requests.
"""

from __future__ import annotations

import asyncio
from enum import Enum

from gateway.serving.wire import Receive

SWEEP_SECONDS = 0.25
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
        "_age",
        "_quiet",
        "_read",
        "_receive",
        "_seen",
        "_task",
        "_watcher",
        "_watches",
        "ending",
        "sending",
        "sent",
    )

    def __init__(self, watches: Watches, receive: Receive) -> None:
        self._watches, self._receive = watches, receive
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._read = False
        self._age = self._quiet = 0  # sweeps
        self._seen = -1
        self.ending: Ending | None = None
        self.sending = False
        self.sent = 0
        watches.open.add(self)

    def body_read(self) -> None:
        self._read = True

    def end(self) -> None:
        """The request is over, whatever happens to its connection now."""
        self._watches.open.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()

    def look(self, group: asyncio.TaskGroup) -> None:
        """One sweep's look."""
        self._age += 1
        if not self._read:
            if self._age >= self._watches.body_sweeps:
                self._cancel(Ending.SLOW)
            return
        if self._watcher is None:
            self._watcher = group.create_task(self._wait())
        self._quiet = self._quiet + 1 if self.sending and self.sent == self._seen else 0
        self._seen = self.sent
        if self._quiet >= self._watches.stall_sweeps:
            self._cancel(Ending.STALLED)

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel(Ending.LEFT)

    def _cancel(self, ending: Ending) -> None:
        # uvicorn says "disconnect" after a complete answer too; by then the request is over.
        if self in self._watches.open and self._task is not None:
            self._watches.open.discard(self)
            self.ending = ending
            self._task.cancel()


class Watches:
    """All open requests' watches. `running` while `run()` runs."""

    def __init__(self, *, stall_seconds: float, body_seconds: float = BODY_SECONDS) -> None:
        self.open: set[Watch] = set()
        self.running = False
        self.stall_sweeps = max(1, round(stall_seconds / SWEEP_SECONDS))
        self.body_sweeps = max(1, round(body_seconds / SWEEP_SECONDS))

    async def run(self) -> None:
        """Look at every request four times a second, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self.running = True
                while True:
                    await asyncio.sleep(SWEEP_SECONDS)
                    for watch in tuple(self.open):
                        watch.look(group)
        finally:
            self.running = False
