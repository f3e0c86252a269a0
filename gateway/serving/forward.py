"""Lease, enter, send, relay: the way of an assigned request to the engine and of its answer to the client.

Before the first byte a request may be sent again, once, and an error is an HTTP error; after it nothing is retried and
an error is the stream's last event. It knows nothing of keys, tenants' names or records.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from adapters.ref import AdapterRef
from gateway.engine.base import Answer, Engine
from gateway.engine.refusals import engine_error, lacks_route
from gateway.errors import GatewayError, NotFound, UpstreamBroken
from gateway.identity import cache_salt
from gateway.serving.admission import Admission
from gateway.serving.answers import is_json
from gateway.serving.endpoints import Endpoint
from gateway.serving.exchange import Exchange
from gateway.serving.relay import Relay
from gateway.serving.residency import Residency
from gateway.serving.routing import instead_of
from gateway.serving.urgency import priority_of

_EVENT_STREAM = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"


class Forward:
    """One engine's, with the residency of its adapters and the queue in front of it. `clock` is the door's; `patience`
    bounds the wait in the queue (seconds); `crowded` is called before each.
    """

    def __init__(
        self,
        engine: Engine,
        residency: Residency,
        admission: Admission,
        clock: Callable[[], float],
        *,
        patience: float,
        crowded: Callable[[], None],
    ) -> None:
        self._engine, self._residency, self._admission, self._clock = engine, residency, admission, clock
        self._patience, self._crowded = patience, crowded

    def lease_now(self, exchange: Exchange) -> bool:
        """Lease what was assigned if that takes no waiting."""
        assert exchange.assignment is not None  # the step before this one set it
        exchange.lease = self._residency.lease_now(exchange.assignment.ref)
        return exchange.lease is not None

    async def lease(self, exchange: Exchange) -> None:
        """Lease what was assigned; if it cannot be had, what the alias's fallback policy says (DESIGN §3.7)."""
        assignment, tenant = exchange.assignment, exchange.tenant
        assert assignment is not None and tenant is not None  # the steps before this one set them
        try:
            await self._wait_for(exchange, assignment.ref)
        except GatewayError as error:
            if not self._residency.ready:
                raise  # nothing can be served now, and certainly not something else than was asked for
            try:
                ref = instead_of(exchange.snapshot, tenant, assignment)
            except LookupError:
                raise error from None
            await self._wait_for(exchange, ref)
            exchange.fallback = True

    async def _wait_for(self, exchange: Exchange, ref: AdapterRef | None) -> None:
        asked = self._clock()
        exchange.lease = await self._residency.lease(ref)
        exchange.waited += self._clock() - asked

    def enter_now(self, exchange: Exchange) -> bool:
        """A place on the engine, if that takes no waiting."""
        request, tenant, lease = exchange.request, exchange.tenant, exchange.lease
        assert request is not None and tenant is not None and lease is not None  # the steps before this one set them
        adapter = lease.seat.name if lease.ref is not None else None
        exchange.priority = priority_of(request.tier, tenant)
        exchange.ticket = self._admission.enter_now(tenant, adapter, exchange.priority)
        return exchange.ticket is not None

    async def enter(self, exchange: Exchange) -> None:
        """Wait for a place in fair order. That time is the engine's, not the gateway's own."""
        tenant, lease, asked = exchange.tenant, exchange.lease, self._clock()
        assert tenant is not None and lease is not None  # as above
        self._crowded()
        adapter = lease.seat.name if lease.ref is not None else None
        exchange.ticket = await self._admission.enter(tenant, adapter, exchange.priority, seconds=self._patience)
        exchange.waited += self._clock() - asked

    async def send(self, exchange: Exchange) -> Answer:
        """The engine's answer, as far as its head. One that has lost an adapter gets it again, once."""
        answer = await self._ask(exchange)
        if answer.status != 200:
            told, lease = await _told(answer), exchange.lease
            if answer.status == 404 and lease is not None and lease.ref is not None and not lacks_route(404, told):
                self._residency.forget(lease.ref)
                lease.release()
                await self.lease(exchange)
                answer = await self._ask(exchange)
                told = b"" if answer.status == 200 else await _told(answer)
            if answer.status != 200:
                raise _refusal(exchange.endpoint, answer.status, told)
        exchange.waited += self._clock() - exchange.asked
        exchange.answered = True
        return answer

    def _ask(self, exchange: Exchange) -> Awaitable[Answer]:
        request, tenant, lease, trace = exchange.request, exchange.tenant, exchange.lease, exchange.trace
        assert request is not None and tenant is not None and lease is not None and trace is not None
        body = request.body(lease.seat.name, cache_salt(exchange.snapshot.secret, tenant.name), exchange.id)
        # Nothing of the client's headers goes on: the engine trusts some of them (FACTS §1).
        headers = b"content-type: application/json\r\nx-request-id: %b\r\ntraceparent: %b\r\n" % (
            exchange.id.encode(),
            trace.header(),
        )
        exchange.asked = self._clock()
        return self._engine.send(exchange.endpoint.raw_path, headers, body)

    async def whole(self, exchange: Exchange, answer: Answer) -> None:
        """Relay an answer in one piece."""
        asked = self._clock()
        body = await answer.read()
        if answer.open_ended and not is_json(body):
            raise UpstreamBroken("The engine's answer ended before it was complete.")
        exchange.body, worded = body, exchange.endpoint.worded
        if worded is not None:
            body = worded(body, exchange)
        now = self._clock()
        exchange.waited += now - asked
        self._residency.heard()
        exchange.call.reply(body, b"content-type: application/json\r\n" + exchange.answer_headers(now))

    async def stream(self, exchange: Exchange, answer: Answer) -> None:
        """Relay an answer event by event. A client that reads slowly holds up the next read: the back-pressure."""
        asked = self._clock()

        def begin() -> None:
            # The head goes out with the first event, not with the engine's: until then an error is an HTTP error.
            now = self._clock()
            exchange.waited += now - asked
            self._residency.heard()
            exchange.call.begin(_EVENT_STREAM + exchange.answer_headers(now))

        exchange.relay = relay = Relay(exchange, begin)
        while not relay.over:
            if await answer.pour(relay.take, relay) and not relay.over:
                raise UpstreamBroken("The engine's answer ended before it was complete.")
            if exchange.call.blocked and not relay.over:
                await exchange.call.drain()
        if relay.error is not None:
            raise relay.error
        with suppress(GatewayError):  # the client has all of it; reading to the end lets the connection be used again
            await answer.pour(_let_go)


def _let_go(_piece: bytes, _chunk: bytes | None) -> bool:
    return True


async def _told(answer: Answer) -> bytes:
    """What an answer that is none says."""
    try:
        return await answer.read()
    finally:
        answer.close()


def _refusal(endpoint: Endpoint, status: int, told: bytes) -> GatewayError:
    if lacks_route(status, told):
        return NotFound(f"The engine of this model does not serve {endpoint.path}.", code="endpoint_not_served")
    return engine_error(status, told)
