"""Clients that are slow, on purpose or not: half a header, half a body, a stream that nobody reads, a connection shut
on one side. They are got rid of, and nobody else notices."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np

from loadtests.arrivals import poisson, weighted
from loadtests.asks import Address, Ask, chat
from loadtests.client import SMALL_WINDOW, Line
from loadtests.crew import Program
from loadtests.installation import Setup
from loadtests.samples import Recording, Samples
from loadtests.stage import Claim, Knobs, Outcome, Run, Stage, none_failed
from loadtests.traffic import Traffic

ABOUT = "half-sent headers and bodies, unread streams, half-closed connections, beside ordinary traffic"
DEFAULTS = Knobs(seconds=100, rate=100)
EACH = 50
"""Slow clients of each kind."""
FLOOD = "tokens=2000 width=8000"
"""A stream of 16 MB: more than all the sockets on the way hold."""
CATCHING_UP = 20.0
"""Seconds before the end at which the first of those who did not read begins to."""
APART = 0.2
"""Seconds between two clients of a kind: 50 streams of 16 MB at once would be a test of bandwidth."""
Notes = dict[str, list[str]]
WORSE = 3.0
"""A bystander's p99 with slow clients may be so many times that without, and `FLOOR` more: p99s are noisy."""
FLOOR = 0.02


@dataclass(frozen=True, slots=True)
class Laggards:
    """So many clients of each kind, at once; notes how long it took until the server had enough of each, and what it
    said. Those that it never ended are noted too."""

    address: Address
    ask: Ask
    flood: Ask
    seconds: float

    async def run(self, line: Line) -> Samples:
        found = Recording()
        found.start = line.ready()
        until = found.start + self.seconds
        async with asyncio.TaskGroup() as group:
            for kind, behave in KINDS.items():
                for place in range(EACH):
                    group.create_task(self._one(kind, behave, found.start + place * APART, until, found.notes))
        return found.samples()

    async def _one(self, kind: str, behave: Behaviour, begin: float, until: float, notes: Notes) -> None:
        await asyncio.sleep(max(0.0, begin - monotonic()))
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
        made.setblocking(False)
        began = monotonic()
        try:
            async with asyncio.timeout(max(0.1, until - began)):
                await asyncio.get_running_loop().sock_connect(made, (self.address.host, self.address.port))
                said = await behave(_Socket(made), self)
        except TimeoutError:
            said = "still open"
        except OSError:
            said = "cut"
        finally:
            made.close()
        notes.setdefault(kind, []).append(f"{monotonic() - began:.2f} {said}")


class _Socket:
    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self.loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.raw, data)

    async def answer(self) -> str:
        """Read to the end; the status of the answer, or "closed"."""
        got = b""
        while data := await self.loop.sock_recv(self.raw, 65536):
            got = (got + data)[:512]
        while got.startswith(b"HTTP/1.1 1"):  # an interim answer
            got = got.partition(b"\r\n\r\n")[2]
        return got.split(b" ", 2)[1].decode() if got.startswith(b"HTTP/") else "closed"


Behaviour = Callable[[_Socket, Laggards], Coroutine[Any, Any, str]]


async def _silence(sock: _Socket, _: Laggards) -> str:
    return await sock.answer()


async def _drip(sock: _Socket, data: bytes) -> str:
    """A byte a second until the server hangs up."""
    reading = asyncio.ensure_future(sock.answer())  # noqa: TID251 — one client's two directions, joined below
    try:
        for place in range(len(data)):
            if reading.done():
                break
            await sock.send(data[place : place + 1])
            await asyncio.wait([reading], timeout=1.0)
        return await reading
    finally:
        reading.cancel()


async def _slow_header(sock: _Socket, plan: Laggards) -> str:
    return await _drip(sock, plan.ask.wire.replace(b"\r\n\r\n", b"\r\nx-pad: " + b"a" * 4000))


async def _slow_body(sock: _Socket, plan: Laggards) -> str:
    head, _, body = plan.ask.wire.partition(b"\r\n\r\n")
    await sock.send(head + b"\r\n\r\n")
    return await _drip(sock, body)


async def _half_closed(sock: _Socket, plan: Laggards) -> str:
    """All is said, and the client's side shut: an answer or a clean end are both right."""
    await sock.send(plan.ask.wire)
    sock.raw.shutdown(socket.SHUT_WR)
    return await sock.answer()


async def _unread(sock: _Socket, plan: Laggards) -> str:
    """Asks for 16 MB and looks away, nearly to the end. A server that let go leaves what the kernel had taken already:
    megabytes, and no [DONE]. One that did not, goes on."""
    await sock.send(plan.flood.wire)
    await asyncio.sleep(max(1.0, plan.seconds - CATCHING_UP))
    end = b""
    try:
        while data := await sock.loop.sock_recv(sock.raw, 1 << 20):
            end = (end + data)[-64:]
    except ConnectionError:
        return "let go"
    return "still open" if b"[DONE]" in end else "let go"


KINDS = {
    "silent": _silence,
    "half a header": _slow_header,
    "half a body": _slow_body,
    "half-closed": _half_closed,
    "unread stream": _unread,
}


def setup(knobs: Knobs) -> Setup:
    return Setup(engine=knobs.engine, workers=knobs.workers)


def run(stage: Stage) -> Outcome:
    knobs = stage.knobs
    key, model = stage.tenant("slow")
    asks = [chat(model, key=key, group="unary"), chat(model, key=key, group="stream", stream=True)]
    without = _ordinary(stage, asks, [], min(knobs.seconds, 10))
    flood = chat(model, key=key, stream=True, wish=FLOOD, max_tokens=100_000)
    once = Traffic(stage.address, (flood,), np.zeros(1, np.int32), np.zeros(1))
    stage.measure([once], seconds=1)  # the mock makes it once, now
    laggards = Laggards(stage.address, asks[0], flood, knobs.seconds)
    beside = _ordinary(stage, asks, [laggards], knobs.seconds)
    outcome = stage.outcome(beside, asks)
    alone = stage.row(without, "without them", range(len(asks)))
    outcome.rows.append(alone)
    both = stage.row(beside, "all", range(len(asks)))
    outcome.claims.append(none_failed(outcome.rows, of="ordinary request"))
    bound = WORSE * alone.e2e[1] + 1e3 * FLOOR
    seen = f"p99 {both.e2e[1]:.1f} ms beside them, {alone.e2e[1]:.1f} ms without"
    outcome.claims.append(
        Claim(f"ordinary p99 stays within {WORSE:g} times and {1e3 * FLOOR:g} ms", both.e2e[1] <= bound, seen)
    )
    _tell(outcome, beside)
    cost = beside.cost
    if "worker" in cost.rss_most:
        grown = (cost.rss_most["worker"] - cost.rss_first["worker"]) / EACH
        outcome.figures["memory per unread stream"] = f"{grown / 1024:.0f} KiB, all growth laid on them"
    return outcome


def _ordinary(stage: Stage, asks: list[Ask], others: list[Program], seconds: float) -> Run:
    random = stage.random
    times = poisson(random, rate=stage.knobs.rate, seconds=seconds)
    which = weighted(random, [1.0] * len(asks), len(times))
    return stage.measure([*stage.open_loop(asks, which, times), *others], seconds=seconds)


def _tell(outcome: Outcome, run: Run) -> None:
    """How each kind fared; all but the unread ones must have been ended by the server."""
    for kind in KINDS:
        told = [note.split(" ", 1) for note in run.samples.notes.get(kind, [])]
        after = np.array([float(seconds) for seconds, _ in told])
        ends: dict[str, int] = {}
        for _, how in told:
            ends[how] = ends.get(how, 0) + 1
        shown = ", ".join(f"{count} {how}" for how, count in sorted(ends.items()))
        outcome.figures[f"{EACH} clients, {kind}"] = f"{shown}; after {after.min():.1f} to {after.max():.1f} s"
        left = ends.get("still open", 0)
        outcome.claims.append(Claim(f"the server ends it: {kind}", left == 0, f"{left} of {len(told)} still open"))
