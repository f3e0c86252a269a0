"""What one client process does: sends requests when they are due (open loop) or as answers come (closed loop).

`Traffic` is the plan, handed from the parent; it runs on a loop of its own and gives back its `Samples`. Requests that
find every connection busy wait in order, and their latency counts from when they were due.
"""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from dataclasses import dataclass
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from loadtests.alarm import Alarm
from loadtests.asks import Address, Ask
from loadtests.client import Client, Line
from loadtests.http1 import Connection
from loadtests.samples import Problem, Samples


@dataclass(frozen=True, slots=True)
class Traffic:
    """`which[i]` is the request (an index of `asks`) of arrival i. With `times`, arrival i is due so many seconds after
    the start; without, each of `connections` sends the next when it has its answer, for `seconds`.

    `timeout` ends a request. `names`: look at which model every event names, and note which version served. `ids`: note
    the inference ids."""

    address: Address
    asks: tuple[Ask, ...]
    which: NDArray[np.int32]
    times: NDArray[np.float64] | None = None
    seconds: float = 0.0
    connections: int = 1024
    timeout: float = 30.0
    names: bool = False
    ids: bool = False

    async def run(self, line: Line) -> Samples:
        """Do it all; returns what was measured."""
        async with asyncio.TaskGroup() as group:
            client = (_Open if self.times is not None else _Closed)(self, line, group)
            await client.connect(self.connections if self.times is None else min(self.connections, 64))
            gc.collect()
            gc.disable()  # a pause of the collector here would be taken for one of the server
            try:
                client.start(line.ready())
                await client.finished.wait()
            finally:
                gc.enable()
                client.close()
        return client.recording.samples()


class _Open(Client):
    """Arrivals by the clock."""

    def __init__(self, plan: Traffic, line: Line, group: asyncio.TaskGroup) -> None:
        super().__init__(plan, line, group)
        assert plan.times is not None
        self.due: list[float] = []
        self.next = 0
        self.waiting: deque[int] = deque()
        self.alarm = Alarm(self.loop, self._ring)

    def start(self, moment: float) -> None:
        super().start(moment)
        assert self.plan.times is not None
        self.due = (self.plan.times + moment).tolist()
        self._ring()

    def _ring(self) -> None:
        now, due = monotonic(), self.due
        while self.next < len(due) and due[self.next] <= now:
            number, self.next = self.next, self.next + 1
            self._launch(number)
        if self.next < len(due):
            self.alarm.set(due[self.next])
        else:
            self._perhaps_done()

    def _launch(self, number: int) -> None:
        plan = self.plan
        if plan.asks[plan.which[number]].reads != "fast":
            self.opening += 1
            self.group.create_task(self._own(number))
        elif self.idle:
            self.begin(self.idle.pop(), number, self.due[number])
        else:
            self.waiting.append(number)
            if len(self.all) + self.opening < plan.connections:
                self.opening += 1
                self.group.create_task(self._one_more())

    async def _one_more(self) -> None:
        try:
            connection = await self._open(small=False)
        except OSError:
            self.opening -= 1
            if self.waiting:
                number = self.waiting.popleft()
                self.missed(number, self.due[number], Problem.UNREACHABLE)
            self._perhaps_done()
        else:
            self.opening -= 1
            self.free(connection)

    async def _own(self, number: int) -> None:
        """A slow reader's: a connection for this request alone, with a small window."""
        try:
            connection = await self._open(small=True)
        except OSError:
            self.missed(number, self.due[number], Problem.UNREACHABLE)
        else:
            self.begin(connection, number, self.due[number])
        self.opening -= 1

    def free(self, connection: Connection) -> None:
        if self.waiting:
            number = self.waiting.popleft()
            self.begin(connection, number, self.due[number])
        elif connection.open:
            self.idle.append(connection)
        self._perhaps_done()

    def fell(self, connection: Connection) -> None:
        super().fell(connection)
        if self.waiting and len(self.all) + self.opening < self.plan.connections:
            self.opening += 1
            self.group.create_task(self._one_more())
        self._perhaps_done()

    def _perhaps_done(self) -> None:
        if self.next >= len(self.due) and not (self.under_way or self.waiting or self.opening):
            self.finished.set()

    def close(self) -> None:
        super().close()
        self.alarm.close()


class _Closed(Client):
    """As many requests under way as there are connections, until the time is over."""

    def __init__(self, plan: Traffic, line: Line, group: asyncio.TaskGroup) -> None:
        super().__init__(plan, line, group)
        self.next = 0
        self.until = 0.0

    def start(self, moment: float) -> None:
        super().start(moment)
        self.until = moment + self.plan.seconds
        self.loop.call_later(max(0.0, moment - monotonic()), self._all_go)

    def _all_go(self) -> None:
        connections, self.idle = self.idle, []
        for connection in connections:
            self.free(connection)

    def free(self, connection: Connection) -> None:
        now = monotonic()
        if now < self.until:
            number, self.next = self.next, (self.next + 1) % len(self.plan.which)
            self.begin(connection, number, now)
        elif not self.under_way:
            self.finished.set()

    def fell(self, connection: Connection) -> None:
        super().fell(connection)
        self._reconnect()

    def _reconnect(self) -> None:
        if monotonic() < self.until:
            self.opening += 1
            self.group.create_task(self._again())
        elif not (self.under_way or self.opening):
            self.finished.set()

    async def _again(self) -> None:
        try:
            connection = await self._open(small=False)
        except OSError:
            await asyncio.sleep(0.05)  # as a client that finds nobody would
            self.missed(self.next, monotonic(), Problem.UNREACHABLE)
            self.opening -= 1
            self._reconnect()
        else:
            self.opening -= 1
            self.free(connection)
