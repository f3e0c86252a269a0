"""Many requests at once over a pool of three connections, with an engine that misbehaves and clients that leave.

Whatever happens: everybody gets their own answer or one of our errors, never a neighbour's and never a part of one;
a request reaches the engine twice only if not a byte of an answer came; nobody waits for ever; nothing is left.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.engine.upstream import Upstream
from gateway.errors import EngineTimeout, GatewayError, UpstreamBroken
from gateway.settings import TimeoutSettings

from .scripted import scripted

pytestmark = pytest.mark.long

ENGINE = ("whole", "whole", "whole", "last", "leaves", "cut", "early", "twice", "silent", "slow")
CLIENT = ("read", "read", "chunks", "drops", "leaves")


@dataclass(frozen=True)
class Plan:
    """What the engine does with one request, and what its client does. `at`: where an answer is cut, in 0..1."""

    engine: str
    client: str
    chunked: bool
    size: int
    at: float


PLANS = st.builds(
    Plan,
    st.sampled_from(ENGINE),
    st.sampled_from(CLIENT),
    st.booleans(),
    st.sampled_from([0, 1, 900, 70_000]),
    st.floats(0, 1, exclude_max=True),
)


def body_of(number: int, plan: Plan) -> bytes:
    return (b"<%d>" % number) * plan.size


def answer_to(number: int, plan: Plan) -> bytes:
    body = body_of(number, plan)
    head = b"HTTP/1.1 200 OK\r\n" + (b"connection: close\r\n" if plan.engine == "last" else b"")
    if not plan.chunked:
        return head + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    pieces = [body[start : start + 10_000] for start in range(0, len(body), 10_000)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close our end when all is sent (what is left in a transport is lost by an abort)."""
    writer.write_eof()
    await reader.read()


class Crowd:
    """The engine's side and the clients' side of a list of plans, and what each saw."""

    def __init__(self, plans: list[Plan]) -> None:
        self.plans = plans
        self.seen: Counter[int] = Counter()

    async def script(self, _: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            number = int(head.split(b"x-number: ")[1].split(b"\r\n")[0])
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            plan = self.plans[number]
            self.seen[number] += 1
            answer = answer_to(number, plan)
            if plan.engine != "early":
                await reader.readexactly(length)
            if plan.engine == "silent":
                await reader.read()
                return None
            if plan.engine == "cut" and self.seen[number] == 1:
                writer.write(answer[: int(len(answer) * plan.at)])
                return await close(reader, writer)
            if plan.engine == "slow":
                await asyncio.sleep(0.02)
            writer.write(answer * 2 if plan.engine == "twice" else answer)
            await writer.drain()
            if plan.engine == "early":
                await reader.readexactly(length)
            if plan.engine in ("last", "leaves"):
                return await close(reader, writer)

    async def ask(self, upstream: Upstream, number: int) -> None:
        plan = self.plans[number]
        whole, got = body_of(number, plan), b""
        seconds = 0.02 * plan.at if plan.client == "leaves" else 5.0
        try:
            async with asyncio.timeout(seconds):
                reply = await upstream.send(b"/x", [(b"x-number", b"%d" % number)], b"r" * plan.size * 3)
                try:
                    if plan.client == "drops":
                        return
                    if plan.client == "read":
                        got = await reply.read()
                    else:
                        while piece := await reply.chunk():
                            got += piece
                            assert whole.startswith(got)
                finally:
                    reply.close()
            assert got == whole
            assert plan.engine != "silent"
        except TimeoutError:
            assert plan.client == "leaves", plan
        except GatewayError as error:
            assert isinstance(error, EngineTimeout if plan.engine == "silent" else UpstreamBroken)
            assert plan.engine in ("cut", "silent", "early"), plan

    def check(self) -> None:
        for number, plan in enumerate(self.plans):
            cut_before_the_first_byte = plan.engine == "cut" and int(len(answer_to(number, plan)) * plan.at) == 0
            assert self.seen[number] <= (2 if cut_before_the_first_byte or self.leavers else 1), plan

    @property
    def leavers(self) -> bool:
        """Whether the engine may close a connection just when somebody takes it from the pool."""
        return any(plan.engine == "leaves" for plan in self.plans)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(plans=st.lists(PLANS, min_size=1, max_size=16), warm=st.booleans(), tcp=st.booleans())
def test_everybody_gets_their_own_answer_or_an_error_and_nothing_is_left(
    plans: list[Plan], warm: bool, tcp: bool
) -> None:
    async def run() -> None:
        crowd = Crowd([Plan("whole", "read", False, 1, 0)] * 3 * warm + plans)
        timeouts = TimeoutSettings(connect=4, first_byte=0.2, idle=0.2, total=4)
        with tempfile.TemporaryDirectory(prefix="tl-") as directory:
            small = {"timeouts": timeouts, "max_connections": 3}
            async with scripted(Path(directory), crowd.script, tcp=tcp, **small) as upstream:
                before = len(os.listdir("/proc/self/fd"))
                async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                    for number in range(len(crowd.plans)):
                        group.create_task(crowd.ask(upstream, number))
                crowd.check()
                await asyncio.sleep(0)
                assert len(upstream._open) == len(upstream._free) <= 3 and not upstream._waiters
                await upstream.aclose()
                await asyncio.sleep(0.03)  # the engine's side has work to give up
                assert len(os.listdir("/proc/self/fd")) <= before

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
