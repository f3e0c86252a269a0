"""The data plane's front door: raw ASGI for the completion routes and the list of models.

A request takes one snapshot and goes through five steps, in `_serve`: authenticate, assign, lease, forward, record.
Nothing here waits for anything but the client's bytes and the engine's. It knows no database and no framework.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import unquote
from uuid import uuid4

from gateway.domain import Inference, Reason
from gateway.engine.base import Engine
from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotFound, RequestTimeout, Unavailable
from gateway.identity import new_inference_id
from gateway.serving import catalogue
from gateway.serving.auth import authenticate
from gateway.serving.exchange import Exchange
from gateway.serving.forward import Forward
from gateway.serving.request import CHAT_COMPLETIONS, COMPLETIONS, parse
from gateway.serving.residency import Residency
from gateway.serving.routing import Episodes, assign
from gateway.serving.watch import BODY_SECONDS, Ending, Watch, Watches
from gateway.serving.wire import ClientGone, Receive, Scope, Send, read_body, refuse, reply
from gateway.snapshot import Current
from gateway.telemetry import Telemetry, trace_id

log = logging.getLogger("gateway.door")

MODELS = "/v1/models"
_ENDPOINTS = {endpoint.path: endpoint for endpoint in (CHAT_COMPLETIONS, COMPLETIONS)}
_MOST_NAME = 512


class Records(Protocol):
    """Where inferences go to be remembered."""

    def record(self, inference: Inference) -> None: ...


class Timeouts(Protocol):
    """Of the settings' timeouts: the seconds after which a client that stopped reading is let go."""

    @property
    def idle(self) -> float: ...


class Door:
    """An ASGI application for the paths it `handles`. `run()` must be running; `draining` refuses new requests while
    open ones go on; `open` counts the requests inside.
    """

    PATHS = frozenset((*_ENDPOINTS, MODELS))

    def __init__(
        self,
        current: Current,
        engine: Engine,
        residency: Residency,
        records: Records,
        telemetry: Telemetry,
        *,
        timeouts: Timeouts,
        max_body_bytes: int,
        clock: Callable[[], float] = time.perf_counter,
        episodes: Episodes | None = None,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._current, self._residency, self._records, self._telemetry = current, residency, records, telemetry
        self._forward = Forward(engine, residency, clock)
        self._watches = Watches(stall_seconds=timeouts.idle, body_seconds=body_seconds)
        self._max_body, self._clock = max_body_bytes, clock
        self._episodes = episodes if episodes is not None else Episodes()
        self.draining = False
        self.open = 0
        telemetry.observe("tuneloop.requests.open", lambda: self.open)
        telemetry.observe("tuneloop.residency.loads", lambda: residency.loads, counter=True)
        telemetry.observe("tuneloop.residency.resident", lambda: len(residency.resident))

    @staticmethod
    def handles(path: str) -> bool:
        """Whether a path is the door's."""
        return path in Door.PATHS or path.startswith(MODELS + "/")

    async def run(self) -> None:
        """Watch the clients of open requests, until cancelled."""
        await self._watches.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = self._clock()
        endpoint = _ENDPOINTS.get(scope["path"])
        if endpoint is None:
            await self._models(scope, send, began)
            return
        self.open += 1
        exchange = Exchange(self._current.snapshot, endpoint, dict(scope["headers"]), began)
        try:
            await self._complete(exchange, scope["method"], receive, send)
        finally:
            self.open -= 1
            self._record(exchange, scope["method"])

    async def _complete(self, exchange: Exchange, method: str, receive: Receive, send: Send) -> None:
        """Serve, and turn whatever can go wrong into what the client should see."""
        watch: Watch | None = None
        try:
            if method != "POST":
                raise MethodNotAllowed(f"Not allowed to {method} on {exchange.endpoint.path}.", remedy="Use POST.")
            if self.draining or not self._watches.running:
                raise Unavailable("This server is shutting down.", remedy="Try again: another one answers.")
            watch = Watch(self._watches, receive)
            await self._serve(exchange, watch, receive, send)
        except GatewayError as error:
            await self._refuse(exchange, error, send)
        except ClientGone:
            exchange.leave()
        except asyncio.CancelledError:
            await self._ended(exchange, watch, send)
        except Exception as error:
            log.error("a defect of the gateway", exc_info=error)
            await self._refuse(exchange, GatewayError("The gateway failed.", code="internal_error"), send)
        finally:
            if watch is not None:
                watch.end()
            if exchange.lease is not None:
                exchange.lease.release()

    async def _serve(self, exchange: Exchange, watch: Watch, receive: Receive, send: Send) -> None:
        """Authenticate, assign, lease, forward. The record is written when all is over, however it ends."""
        self._authenticate(exchange)
        body = await read_body(receive, exchange.headers, self._max_body)
        watch.body_read()
        request = exchange.request = parse(body, exchange.endpoint)
        exchange.size = len(body)
        self._assign(exchange)
        await self._lease(exchange)
        answer = await self._forward.send(exchange)
        try:
            await (self._forward.stream if request.stream else self._forward.whole)(exchange, answer, watch, send)
        finally:
            answer.close()

    def _authenticate(self, exchange: Exchange) -> None:
        headers, snapshot = exchange.headers, exchange.snapshot
        tenant, exchange.key = authenticate(headers.get(b"authorization"), snapshot, stale=self._current.stale)
        exchange.tenant = tenant
        exchange.id = new_inference_id(snapshot.secret, tenant.name)
        # A UUIDv7's 32 hex are a valid trace id: an inference and its trace then go by one name.
        exchange.trace = self._telemetry.begin(headers.get(b"traceparent"), exchange.id[:32])
        trace_id.set(exchange.trace.trace_id)

    def _assign(self, exchange: Exchange, *, anew: bool = False) -> None:
        """Decide what is to serve this request. `anew`: what its episode began with cannot be served."""
        request, tenant, headers, snapshot = exchange.request, exchange.tenant, exchange.headers, exchange.snapshot
        assert request is not None and tenant is not None  # the steps before this one set them
        episode = exchange.episode = _name(headers, b"x-episode-id")
        # An episode without a user is its own targeting key, so that every worker draws the same for it.
        key = _name(headers, b"x-targeting-key") or request.targeting or episode or exchange.id
        exchange.targeting_key = key
        assignment = assign(snapshot, tenant, request.model, key)
        if episode is not None:
            if anew:
                self._episodes.forget(tenant, assignment.alias, episode)
            assignment = self._episodes.keep(snapshot, tenant, episode, assignment)
        exchange.assignment = assignment

    async def _lease(self, exchange: Exchange) -> None:
        try:
            await self._forward.lease(exchange)
        except GatewayError:
            cached = exchange.assignment is not None and exchange.assignment.reason is Reason.CACHED
            if not cached or not self._residency.ready:
                raise
            self._assign(exchange, anew=True)
            await self._forward.lease(exchange)

    async def _refuse(self, exchange: Exchange, error: GatewayError, send: Send) -> None:
        """An HTTP error before the first byte, the stream's last event after it (and then no [DONE])."""
        exchange.fail(error)
        if error.status >= 502:
            self._residency.wake()  # the engine may be gone: look now
        if exchange.begun is not None:
            event = b"data: " + error.body() + b"\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": False})
            return
        # After these the connection still holds bytes of a body, or a server that is about to go.
        close = self.draining or error.status in (405, 408, 413)
        await refuse(send, error, exchange.identity_headers() or [(b"x-request-id", uuid4().hex.encode())], close=close)

    async def _ended(self, exchange: Exchange, watch: Watch | None, send: Send) -> None:
        """The request's task was cancelled: by our watch, or by a server that cannot wait for it any longer."""
        ending, task = (watch.ending if watch is not None else None), asyncio.current_task()
        if ending is None or task is None:
            await self._refuse(exchange, Unavailable("This server is shutting down."), send)
            raise asyncio.CancelledError
        task.uncancel()
        if ending is Ending.SLOW:
            await self._refuse(exchange, RequestTimeout("The body of your request did not arrive in time."), send)
        else:
            exchange.leave()

    def _record(self, exchange: Exchange, method: str) -> None:
        now = self._clock()
        method = method if method == "POST" else "_OTHER"
        self._telemetry.http(method, exchange.endpoint.path, exchange.status, now - exchange.began)
        inference = exchange.inference(now)
        if inference is not None and exchange.trace is not None:
            self._records.record(inference)
            operation = exchange.endpoint.operation
            self._telemetry.request(inference, exchange.trace, operation=operation, error=exchange.error)

    async def _models(self, scope: Scope, send: Send, began: float) -> None:
        """`GET /v1/models` and `GET /v1/models/{model}`."""
        path, method, snapshot = scope["path"], scope["method"], self._current.snapshot
        headers, status = [(b"x-request-id", uuid4().hex.encode())], 200
        try:
            if not self.handles(path):
                raise NotFound(f"Unknown request URL: {method} {path[:200]}.", code="unknown_url")
            if method != "GET":
                raise MethodNotAllowed(f"Not allowed to {method} on {path[:200]}.", remedy="Use GET.")
            authorization = dict(scope["headers"]).get(b"authorization")
            tenant, _ = authenticate(authorization, snapshot, stale=self._current.stale)
            if path == MODELS:
                body = catalogue.listing(snapshot, tenant)
            else:
                body = catalogue.card(snapshot, tenant, unquote(path.removeprefix(MODELS + "/")))
            await reply(send, body, headers)
        except GatewayError as error:
            status = error.status
            await refuse(send, error, headers)
        self._telemetry.http(method if method == "GET" else "_OTHER", MODELS, status, self._clock() - began)


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
