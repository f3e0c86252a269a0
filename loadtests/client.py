"""A load-testing client in one process: its connections, its bookkeeping, and its word to the parent.

When a request begins is not decided here but by the two loops of `traffic.py`.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from loadtests.asks import Address
from loadtests.http1 import NOTHING, Connection, NamingConnection
from loadtests.samples import Problem, Recording

if TYPE_CHECKING:
    from loadtests.traffic import Traffic

SWEEP_SECONDS = 0.5
SMALL_WINDOW = 4096
"""Receive buffer, in bytes, of a client that reads slowly: else the kernel would read on for it."""


class Line(Protocol):
    """To the parent: `ready` waits for the start and returns its moment; `progress` says how far it is."""

    def ready(self) -> float: ...

    def progress(self, done: int, failed: int, under_way: int) -> None: ...


class Client(ABC):
    """Connections and bookkeeping. `free` and `fell` are the loops' own."""

    def __init__(self, plan: Traffic, line: Line, group: asyncio.TaskGroup) -> None:
        self.plan, self.line, self.group = plan, line, group
        self.loop = asyncio.get_running_loop()
        self.recording = Recording()
        self.finished = asyncio.Event()
        self.idle: list[Connection] = []
        self.all: set[Connection] = set()
        self.opening = 0
        self.under_way = self.done = self.failed = 0
        self.kind: Callable[[Client], Connection] = NamingConnection if plan.names else Connection
        self.sweeping: asyncio.TimerHandle | None = None

    async def connect(self, count: int) -> None:
        """Open so many connections before the clock starts. Raises OSError."""
        for _ in range(count):
            self.idle.append(await self._open(small=False))

    async def _open(self, *, small: bool) -> Connection:
        address = self.plan.address
        if address.uds:
            _, made = await self.loop.create_unix_connection(lambda: self.kind(self), address.uds)
        elif small:
            sock = await _small_socket(self.loop, address)
            _, made = await self.loop.create_connection(lambda: self.kind(self), sock=sock)
        else:
            _, made = await self.loop.create_connection(lambda: self.kind(self), address.host, address.port)
        self.all.add(made)
        return made

    def start(self, moment: float) -> None:
        self.recording.start = moment
        self.sweeping = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Progress, and what takes too long."""
        limit = monotonic() - self.plan.timeout
        for connection in [one for one in self.all if one.ask is not None and one.sent < limit]:
            connection.stop(Problem.TIMEOUT)
        self.line.progress(self.done, self.failed, self.under_way)
        if not self.finished.is_set():
            self.sweeping = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def begin(self, connection: Connection, number: int, intended: float) -> None:
        self.under_way += 1
        connection.begin(self.plan.asks[self.plan.which[number]], number, intended)

    def ended(self, connection: Connection, problem: Problem) -> None:
        self.under_way -= 1
        self.done += 1
        self.failed += problem not in (Problem.NONE, Problem.GAVE_UP)
        plan, recording, one = self.plan, self.recording, connection
        served = recording.name(one.adapter.decode("latin-1")) if plan.names and one.adapter else -1
        ask = int(plan.which[one.number])
        recording.row(
            *(ask, one.intended, one.sent, one.first, one.last, one.end, one.tokens, one.status, problem, served)
        )
        if one.gaps:
            recording.gaps["gap_at"].extend(one.gaps[::2])
            recording.gaps["gap"].extend(one.gaps[1::2])
            recording.gaps["gap_ask"].extend([ask] * (len(one.gaps) // 2))
        if plan.ids and one.inference and problem == Problem.NONE:
            recording.notes.setdefault("ids", []).append(one.inference.decode("latin-1"))
        if one.open and plan.asks[ask].reads == "fast":
            self.free(one)
        else:  # a slow reader's window is too small for anybody else
            one.hang_up()
            self.fell(one)

    def missed(self, number: int, intended: float, problem: Problem) -> None:
        """A request that never got a connection."""
        self.done += 1
        self.failed += 1
        ask = int(self.plan.which[number])
        nothing = (NOTHING, NOTHING, NOTHING, monotonic(), 0, 0)
        self.recording.row(ask, intended, *nothing, problem, -1)

    @abstractmethod
    def free(self, connection: Connection) -> None:
        """A connection may be used again."""

    def fell(self, connection: Connection) -> None:
        """A connection ended with its request."""
        self.all.discard(connection)

    def lost(self, connection: Connection) -> None:
        self.all.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    def close(self) -> None:
        self.finished.set()
        if self.sweeping is not None:
            self.sweeping.cancel()
        for connection in list(self.all):
            connection.transport.abort()


async def _small_socket(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    made = socket.socket(socket.AF_INET)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
    await loop.sock_connect(made, (address.host, address.port))
    return made
