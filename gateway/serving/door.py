"""The data plane's front door: the inference routes and the list of models.

A request takes one snapshot and goes through the steps in `_serve`: authenticate, assign, reserve, lease, enter,
forward; then it is settled and recorded.
Nothing here waits for anything but the engine's bytes and the client's reading. It knows no database and no framework.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from gateway.domain import Inference, Reason
from gateway.engine.base import Engine
from gateway.errors import EngineTimeout, GatewayError, InvalidRequest, MethodNotAllowed, Unavailable
from gateway.heads import Heads
from gateway.serving import catalogue
from gateway.serving.admission import Admission
from gateway.serving.auth import Doorkeeper, authenticate, shown
from gateway.serving.call import Call
from gateway.serving.exchange import Exchange
from gateway.serving.forward import Forward
from gateway.serving.front import BODY_SECONDS, HEAD_SECONDS, Front
from gateway.serving.limits import Limiter, estimate
from gateway.serving.request import ENDPOINTS, FOR_EVALUATION, parse
from gateway.serving.residency import Residency
from gateway.serving.routing import Episodes, assign
from gateway.serving.urgency import deadline_of
from gateway.snapshot import Current
from gateway.telemetry import Telemetry, trace_id

log = logging.getLogger("gateway.door")

_MOST_NAME = 512
LOOK_SECONDS = 0.5
"""Between two looks at every connection: the grain of the deadlines, at 0.3 µs a connection."""


class Records(Protocol):
    """Where inferences go to be remembered."""

    def record(self, inference: Inference) -> None: ...


class Mirrors(Protocol):
    """Who may have a request that is over answered once more, by somebody else, and gives way when others wait."""

    def consider(self, exchange: Exchange) -> None: ...

    def give_way(self) -> None: ...


class Timeouts(Protocol):
    """Of the settings' timeouts, in seconds: after `idle` a client that stopped reading is let go, and `first_byte` is
    how long a request waits for its turn."""

    @property
    def idle(self) -> float: ...

    @property
    def first_byte(self) -> float: ...


class Door:
    """Serves the paths it `handles`. `run()` must be running; `draining` refuses new requests while open ones go on;
    `open` counts the requests inside, `fronts` are the connections (front.py), whose deadlines are kept here.
    """

    def __init__(
        self,
        current: Current,
        engine: Engine,
        residency: Residency,
        records: Records,
        telemetry: Telemetry,
        shadows: Mirrors,
        limiter: Limiter,
        admission: Admission,
        *,
        timeouts: Timeouts,
        max_body_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
        episodes: Episodes | None = None,
        head_seconds: float = HEAD_SECONDS,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._current, self._residency, self._records, self._telemetry = current, residency, records, telemetry
        self._limiter, self._shadows = limiter, shadows
        self._forward = Forward(
            engine, residency, admission, clock, patience=timeouts.first_byte, crowded=shadows.give_way
        )
        self._clock = clock
        self._episodes = episodes if episodes is not None else Episodes()
        self._keeper = Doorkeeper()
        self.fronts: set[Front] = set()
        self.heads: Heads[tuple[str, Mapping[bytes, bytes]]] = Heads()
        self.max_body = max_body_bytes
        self.head_seconds, self.body_seconds, self.stall_seconds = head_seconds, body_seconds, timeouts.idle
        self.running = self.draining = False
        self.open = 0
        telemetry.observe("tuneloop.connections.open", lambda: len(self.fronts))
        telemetry.observe("tuneloop.requests.open", lambda: self.open)
        telemetry.observe("tuneloop.admission.running", lambda: admission.running)
        telemetry.observe("tuneloop.admission.waiting", lambda: admission.waiting)
        telemetry.observe("tuneloop.residency.loads", lambda: residency.loads, counter=True)
        telemetry.observe("tuneloop.residency.resident", lambda: len(residency.resident))

    @staticmethod
    def handles(path: str) -> bool:
        """Whether a path is the door's."""
        return path in ENDPOINTS or path.startswith(catalogue.PATH)

    async def run(self) -> None:
        """Look after the clients' connections, until cancelled."""
        now = asyncio.get_running_loop().time
        self.running = True
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                for front in tuple(self.fronts):
                    front.look(now())
        finally:
            self.running = False

    def admit(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise if whoever sends these headers is not known: a stranger's large body need not be kept."""
        authenticate(shown(headers), self._current.snapshot, stale=self._current.stale)

    async def serve(self, call: Call) -> None:
        """Answer one call, turn whatever can go wrong into what its client should see, and remember it."""
        endpoint = ENDPOINTS.get(call.path)
        if endpoint is None:
            self._models(call)
            return
        self.open += 1
        exchange = Exchange(self._current.snapshot, endpoint, call, self._clock(), datetime.now(UTC))
        try:
            await self._serve(exchange)
        except GatewayError as error:
            self._refuse(exchange, error)
        except asyncio.CancelledError:
            self._ended(exchange)
        except Exception as error:
            log.error("a defect of the gateway", exc_info=error)
            self._refuse(exchange, GatewayError("The gateway failed.", code="internal_error"))
        finally:
            self.open -= 1
            exchange.release()
            self._record(exchange)

    async def _serve(self, exchange: Exchange) -> None:
        """Authenticate, assign, reserve, lease, enter, forward. What was taken is given back, and the record written,
        when all is over, however it ends."""
        self._check(exchange.call)
        self._authenticate(exchange)
        request = exchange.request = parse(exchange.call.body, exchange.endpoint)
        self._assign(exchange)
        self._reserve(exchange)
        if not self._forward.lease_now(exchange):
            await self._lease(exchange)
        if not self._forward.enter_now(exchange):
            await self._forward.enter(exchange)
        answer = await self._forward.send(exchange)
        try:
            await (self._forward.stream if request.stream else self._forward.whole)(exchange, answer)
        finally:
            answer.close()

    def _check(self, call: Call) -> None:
        """What is wrong whoever asks."""
        if call.refusal is not None:
            raise call.refusal
        if call.method != "POST":
            raise MethodNotAllowed(f"Not allowed to {call.method} on {call.path}.", remedy="Use POST.")
        if self.draining or not self.running:
            raise Unavailable("This server is shutting down.", remedy="Try again: another one answers.")
        if call.headers.get(b"content-encoding", b"identity") != b"identity":
            raise InvalidRequest("Compressed bodies are not accepted.", code="unsupported_content_encoding")

    def _authenticate(self, exchange: Exchange) -> None:
        headers, snapshot = exchange.call.headers, exchange.snapshot
        tenant, exchange.key = self._keeper.authenticate(shown(headers), snapshot, stale=self._current.stale)
        exchange.tenant = tenant
        if tenant.evaluates:
            exchange.endpoint = FOR_EVALUATION.get(exchange.endpoint.path, exchange.endpoint)
            exchange.repeat_for(headers.get(b"x-unit"))
        exchange.id = exchange.endpoint.new_id(snapshot.secret, tenant.name)
        # A UUIDv7's 32 hex are a valid trace id: an inference and its trace then go by one name.
        exchange.trace = self._telemetry.begin(headers.get(b"traceparent"), exchange.id[:32])
        trace_id.set(exchange.trace.trace_id)

    def _assign(self, exchange: Exchange, *, anew: bool = False) -> None:
        """Decide what is to serve this request. `anew`: what its episode began with cannot be served."""
        request, tenant, snapshot = exchange.request, exchange.tenant, exchange.snapshot
        assert request is not None and tenant is not None  # the steps before this one set them
        headers = exchange.call.headers
        aside = request.aside
        episode = exchange.episode = aside.episode if aside is not None else _name(headers, b"x-episode-id")
        # An episode without a user is its own targeting key, so that every worker draws the same for it.
        key = _name(headers, b"x-targeting-key") or request.targeting or episode or exchange.id
        exchange.targeting_key = key
        assignment = assign(snapshot, tenant, request.model, key, episode, exchange.id)
        # One that is born here is most often the last of itself: it begins once its client comes back with it.
        if episode is not None and (aside is None or not aside.born):
            if anew:
                self._episodes.forget(tenant, assignment.alias, episode)
            assignment = self._episodes.keep(snapshot, tenant, episode, assignment)
        exchange.assignment = assignment

    def _reserve(self, exchange: Exchange) -> None:
        tenant, key, request = exchange.tenant, exchange.key, exchange.request
        assert tenant is not None and key is not None and request is not None  # the steps before this one set them
        if tenant.limits is not None or key.limits is not None:
            tokens = estimate(len(exchange.call.body), request.most_tokens())
            exchange.reservation = self._limiter.reserve(tenant, key, tokens)
        seconds = deadline_of(exchange.call.headers)
        if seconds is not None:
            exchange.end_by(asyncio.get_running_loop(), seconds)

    async def _lease(self, exchange: Exchange) -> None:
        try:
            await self._forward.lease(exchange)
        except GatewayError:
            cached = exchange.assignment is not None and exchange.assignment.reason is Reason.CACHED
            if not cached or not self._residency.ready:
                raise
            self._assign(exchange, anew=True)
            await self._forward.lease(exchange)

    def _refuse(self, exchange: Exchange, error: GatewayError) -> None:
        """An HTTP error before the first byte, the stream's last event after it (and then no [DONE])."""
        call, dialect = exchange.call, exchange.endpoint.dialect
        if call.over:
            return  # the client has its answer; what went wrong afterwards is not its business
        exchange.fail(error)
        if error.status >= 502:
            self._residency.wake()  # the engine may be gone: look now
        if exchange.begun is not None:
            last = exchange.events.last if exchange.events is not None else b""
            call.write(dialect.event(error, exchange.id, last), last=True)
            return
        if self.draining:
            call.keep = False
        call.refuse(error, exchange.identity_headers(), dialect.body(error, exchange.id))

    def _ended(self, exchange: Exchange) -> None:
        """The request's task was cancelled: its client left, or its time or the server's is over."""
        task = asyncio.current_task()
        if task is not None and exchange.call.gone:
            exchange.leave()
        elif task is not None and exchange.expired:
            error = EngineTimeout("Your request's deadline has passed.", code="deadline_exceeded")
            self._refuse(exchange, error)
        else:
            self._refuse(exchange, Unavailable("This server is shutting down."))
            raise asyncio.CancelledError
        task.uncancel()

    def _record(self, exchange: Exchange) -> None:
        now = self._clock()
        method = "POST" if exchange.call.method == "POST" else "_OTHER"
        self._telemetry.http(method, exchange.endpoint.path, exchange.status, now - exchange.began)
        inference = exchange.inference(now)
        exchange.settle(inference)
        if inference is not None and exchange.trace is not None:
            operation, aside = exchange.endpoint.operation, exchange.aside
            self._telemetry.request(inference, exchange.trace, operation=operation, error=exchange.error)
            if aside is None or aside.kept:
                self._records.record(inference)
                self._shadows.consider(exchange)

    def _models(self, call: Call) -> None:
        began = self._clock()
        status = catalogue.answer(call, self._current.snapshot, stale=self._current.stale)
        method = call.method if call.method == "GET" else "_OTHER"
        self._telemetry.http(method, catalogue.PATH, status, self._clock() - began)


def _name(headers: Mapping[bytes, bytes], header: bytes) -> str | None:
    """A name that a client sends in a header: up to 512 bytes of UTF-8. None when it is absent or empty."""
    value = headers.get(header)
    if not value:
        return None
    name = header.decode()
    if len(value) > _MOST_NAME:
        raise InvalidRequest(f"The header '{name}' is longer than {_MOST_NAME} bytes.", param=name)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"The header '{name}' is not UTF-8.", param=name) from None
