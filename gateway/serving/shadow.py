"""Shadow traffic: a candidate answers a share of an alias's requests a second time, for the record and for nobody else.

It begins where a request has ended, and takes only what is free at that moment: one of few places of its own, a
candidate that is on the engine, a way in that nobody waits for. What it cannot have at once is dropped and counted. It
knows no clients, and nothing that goes wrong here is an error of the gateway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from adapters.ref import AdapterRef
from gateway.domain import Inference, Shadow, Tenant
from gateway.engine.base import Engine
from gateway.engine.refusals import engine_error
from gateway.errors import EngineTimeout, GatewayError, Unavailable, UpstreamBroken
from gateway.serving.answers import is_json
from gateway.serving.leases import Lease
from gateway.serving.mirror import Ended, Mirror, chosen, comparable
from gateway.serving.residency import Residency

log = logging.getLogger("gateway.shadow")

MOST_IN_FLIGHT = 8
"""Of one worker. At two seconds an answer that is 14,000 answers an hour, plenty for a verdict, and few beside the 256
sequences that vLLM runs at once by default."""

LONGEST_SECONDS = 60.0
"""A candidate that has not answered by then is recorded as too slow: it holds a place here and one on the engine."""

_JSON = (b"content-type", b"application/json")


class Records(Protocol):
    """Where inferences go to be remembered."""

    def record(self, inference: Inference) -> None: ...


class Place(Protocol):
    """A request's place on the engine."""

    def leave(self) -> None: ...


class Gauges(Protocol):
    """Where the shadows show themselves."""

    def observe(self, name: str, read: Callable[[], float], *, counter: bool = False) -> None: ...


class _Held:
    """What one mirrored request holds for as long as it is open."""

    __slots__ = ("lease", "place")

    def __init__(self, lease: Lease, place: Place | None) -> None:
        self.lease, self.place = lease, place

    def release(self) -> None:
        self.lease.release()
        if self.place is not None:
            self.place.leave()


class Shadows:
    """One worker's. `consider` is for the door, `run()` must be running, `stop()` ends all of it at once.

    `enter` asks admission for a place that nobody else wants, for a tenant and an adapter (None: the base model);
    without it the places here are the only bound.

    `answered` and `failed` count the candidates' answers since the start (both are recorded), `dropped` what was chosen
    and could not be had at once, or was given up on the way out (not recorded).
    """

    def __init__(
        self,
        engine: Engine,
        residency: Residency,
        records: Records,
        *,
        clock: Callable[[], float] = time.perf_counter,
        telemetry: Gauges | None = None,
        enter: Callable[[Tenant, str | None], Place | None] | None = None,
        most: int = MOST_IN_FLIGHT,
        seconds: float = LONGEST_SECONDS,
    ) -> None:
        self._engine, self._residency, self._records, self._clock = engine, residency, records, clock
        self._enter, self._most, self._seconds = enter, most, seconds
        self._group: asyncio.TaskGroup | None = None
        self._open: dict[asyncio.Task[None], _Held] = {}
        self.answered = self.failed = self.dropped = 0
        if telemetry is not None:
            telemetry.observe("tuneloop.shadow.open", lambda: self.open)
            telemetry.observe("tuneloop.shadow.answered", lambda: self.answered, counter=True)
            telemetry.observe("tuneloop.shadow.failed", lambda: self.failed, counter=True)
            telemetry.observe("tuneloop.shadow.dropped", lambda: self.dropped, counter=True)

    @property
    def open(self) -> int:
        """Mirrored requests that are at the engine now."""
        return len(self._open)

    async def run(self) -> None:
        """Mirror until cancelled; what is open then is given up."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.stop()

    def stop(self) -> None:
        """Take no more, and give up what is open."""
        self._group = None
        self.give_way()

    def give_way(self) -> None:
        """Give up all that is open: a client's request has to wait. The engine learns of it by closed connections."""
        for task in tuple(self._open):
            task.cancel()

    def consider(self, exchange: Ended) -> None:
        """Mirror this request, or not. It is over, and its record written. Never waits and never raises."""
        assignment, tenant = exchange.assignment, exchange.tenant
        if assignment is None or tenant is None:
            return
        alias = exchange.snapshot.aliases.get((tenant.name, assignment.alias))
        if alias is None or alias.shadow is None:
            return
        if comparable(exchange, alias.shadow.ref) and chosen(alias, alias.shadow, exchange.id):
            self._begin(exchange, tenant, alias.shadow)

    def _begin(self, exchange: Ended, tenant: Tenant, shadow: Shadow) -> None:
        group = self._group
        held = self._hold(tenant, shadow.ref) if group is not None and len(self._open) < self._most else None
        if group is None or held is None:
            self.dropped += 1
            return
        task = group.create_task(self._answer(exchange, shadow, held.lease.seat.name))
        self._open[task] = held
        task.add_done_callback(self._over)

    def _hold(self, tenant: Tenant, ref: AdapterRef | None) -> _Held | None:
        """A lease and a place, if they are to be had at once."""
        try:
            lease = self._residency.lease_now(ref)
        except Unavailable:
            return None
        if lease is None or self._enter is None:
            return _Held(lease, None) if lease is not None else None
        place = self._enter(tenant, lease.seat.name if ref is not None else None)
        if place is None:
            lease.release()
            return None
        return _Held(lease, place)

    def _over(self, task: asyncio.Task[None]) -> None:
        # Here and not at the task's end: one that is cancelled before it began never comes there.
        self._open.pop(task).release()
        if task.cancelled():
            self.dropped += 1

    async def _answer(self, exchange: Ended, shadow: Shadow, model: str) -> None:
        began = self._clock()
        try:
            mirror = Mirror(exchange, shadow, model)
            await self._complete(mirror)
        except Exception as defect:  # it must not take the other mirrored requests along, nor the worker
            log.error("a defect of the gateway", exc_info=defect)
        else:
            mirror.row.duration_ms = (self._clock() - began) * 1e3
            self._records.record(mirror.row)

    async def _complete(self, mirror: Mirror) -> None:
        """Have the candidate answer, or note why it did not."""
        try:
            async with asyncio.timeout(self._seconds):
                mirror.served(await self._ask(mirror))
            self.answered += 1
        except (GatewayError, TimeoutError) as error:
            mirror.failed(error if isinstance(error, GatewayError) else EngineTimeout("The candidate is too slow."))
            self.failed += 1

    async def _ask(self, mirror: Mirror) -> bytes:
        # No trace goes along: the candidate's work is no part of the client's request.
        headers = (_JSON, (b"x-request-id", mirror.row.id.encode()))
        answer = await self._engine.send(mirror.endpoint.raw_path, headers, mirror.body)
        try:
            body = await answer.read()
            if answer.status != 200:
                raise engine_error(answer.status, body)
            if answer.open_ended and not is_json(body):
                raise UpstreamBroken("The candidate's answer ended before it was complete.")
        finally:
            answer.close()
        return body
