"""One request on its way through the door: what is known of it so far, its headers, and its record in the end."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import msgspec

from gateway.domain import BASE, ApiKey, Assignment, Inference, Tenant
from gateway.errors import EngineTimeout, GatewayError, InvalidRequest
from gateway.identity import unit_of
from gateway.serving.answers import NOTHING, Notes
from gateway.serving.aside import Aside
from gateway.serving.call import Call
from gateway.serving.leases import Lease
from gateway.serving.limits import Reservation, estimate
from gateway.serving.request import Endpoint, Request
from gateway.serving.sse import Events
from gateway.serving.turns import Ticket
from gateway.serving.urgency import Priority
from gateway.snapshot import Snapshot
from gateway.telemetry import Trace

MOST_KEPT = 256 * 1024
"""Bytes of a prompt, and of an answer as it came, beyond which a tenant's content is not kept."""

_UNIT = re.compile(rb"[0-9a-f]{32}")


class Pieces(Protocol):
    """Who counts the pieces of a stream that were sent."""

    pieces: int


class Exchange(msgspec.Struct):
    """`snapshot` is taken once, here. `began` and all other moments are the door's clock, in seconds; `waited` is the
    time spent on the engine until the first byte could leave, so that the rest is the gateway's own.
    """

    snapshot: Snapshot
    endpoint: Endpoint
    call: Call
    began: float
    created_at: datetime
    tenant: Tenant | None = None
    key: ApiKey | None = None
    id: str = ""
    """44 hex, once the tenant is known."""
    trace: Trace | None = None
    request: Request | None = None
    targeting_key: str = ""
    unit: str = ""
    """Whose the request is, where it is not the targeting key's."""
    episode: str | None = None
    assignment: Assignment | None = None
    reservation: Reservation | None = None
    lease: Lease | None = None
    priority: Priority = Priority.NORMAL
    ticket: Ticket | None = None
    fallback: bool = False
    """What is leased is not what was assigned."""
    answered: bool = False
    """The engine took the request: what was leased is what is served."""
    asked: float = 0.0
    """When the engine was asked, the last time."""
    waited: float = 0.0
    begun: float | None = None
    """When the first byte of the answer left."""
    status: int = 0
    outcome: str = "ok"
    error: str | None = None
    """The code of the error the client saw, or should have."""
    body: bytes = b""
    events: Events | None = None
    relay: Pieces | None = None
    timer: asyncio.TimerHandle | None = None
    expired: bool = False
    """The client's own deadline has passed."""

    @property
    def keeps(self) -> bool:
        """Whether prompt and answer are to be kept."""
        return self.tenant is not None and self.tenant.store_content

    @property
    def variant(self) -> str:
        """The assigned one's name."""
        return self.assignment.variant if self.assignment is not None else ""

    @property
    def aside(self) -> Aside | None:
        """What the client's body says that is not for the engine."""
        return self.request.aside if self.request is not None else None

    def repeat_for(self, unit: bytes | None) -> None:
        """Note whose words an evaluation repeats, if it says so: then it may be kept like that user's own requests,
        since erasing the user finds it. Raises `InvalidRequest` for what is no unit."""
        if unit is None:
            return
        if _UNIT.fullmatch(unit) is None:
            raise InvalidRequest("The header 'x-unit' is no unit of 32 hex digits.", param="x-unit")
        assert self.tenant is not None  # it was authenticated
        self.unit = unit.decode()
        self.tenant = replace(self.tenant, store_content=self.snapshot.tenants[self.tenant.name].store_content)

    def identity_headers(self) -> bytes:
        """Who this request is; on errors too. Rendered."""
        if not self.id:
            return b""
        name, endpoint = self.id.encode(), self.endpoint
        headers = b"x-request-id: %b\r\nx-inference-id: %b%b\r\n" % (name, endpoint.id_prefix.encode(), name)
        further = endpoint.dialect.id_header
        return headers if further is None else b"%b%b: %b\r\n" % (headers, further, name)

    def answer_headers(self, now: float) -> bytes:
        """All of ours, before the first byte: the identity, the assignment, and what the gateway added in time."""
        self.begun, self.status = now, 200
        assignment, lease = self.assignment, self.lease
        assert assignment is not None and lease is not None  # an answer was leased and assigned before
        taken = now - self.began
        headers = b"%bx-variant: %b\r\nx-adapter: %b\r\nx-overhead-ms: %.2f\r\nopenai-processing-ms: %d\r\n" % (
            self.identity_headers(),
            assignment.variant.encode(),
            lease.seat.name.encode() if lease.ref is not None else b"base",
            (taken - self.waited) * 1e3,
            taken * 1e3,
        )
        if assignment.experiment is not None:
            headers += b"x-experiment: %b\r\n" % assignment.experiment.encode()
        if self.fallback:
            headers += b"x-fallback: true\r\n"
        return headers if self.reservation is None else headers + self.reservation.lines

    def end_by(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Cancel the request's task when this time is over."""
        self.timer = loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        if self.call.task is not None:
            self.expired = True
            self.call.task.cancel()

    def release(self) -> None:
        """Give back what was taken for as long as the request runs."""
        if self.timer is not None:
            self.timer.cancel()
        if self.ticket is not None:
            self.ticket.leave()
        if self.lease is not None:
            self.lease.release()

    def settle(self, inference: Inference | None) -> None:
        """Turn what was reserved into what was used: nothing, unless the client got something of an answer."""
        reservation = self.reservation
        if reservation is None:
            return
        if inference is None or self.begun is None or self.outcome in ("engine_error", "timeout"):
            reservation.settle(None)
        elif inference.input_tokens is not None:
            reservation.settle(inference.input_tokens + (inference.output_tokens or 0))
        elif self.outcome == "disconnected":  # a piece is a token, as near as anybody knows
            reservation.settle(estimate(len(self.call.body), self.relay.pieces if self.relay is not None else 0))
        else:
            reservation.settle(reservation.tokens)

    def fail(self, error: GatewayError) -> None:
        """Note an error that ends the request. What was sent already keeps its status."""
        self.error = error.code or error.type
        if isinstance(error, EngineTimeout):
            self.outcome = "timeout"
        else:
            self.outcome = "client_error" if error.status < 500 else "engine_error"
        if self.begun is None:
            self.status = error.status

    def leave(self) -> None:
        """Note that the client is gone."""
        self.outcome, self.error = "disconnected", "client_disconnected"
        if self.begun is None:
            self.status = 499  # nginx's number for it; nobody receives it

    def inference(self, now: float) -> Inference | None:
        """The record, once there is an assignment to record."""
        tenant, key, request, assignment = self.tenant, self.key, self.request, self.assignment
        if assignment is None or request is None or tenant is None or key is None:
            return None
        served, digest = self._served()
        notes, keeps = self._notes(), self.keeps
        begun, trace = self.begun, self.trace
        # In the order of the fields, without their names: that takes 0.5 µs, and 5 with them.
        return Inference(
            self.id,
            tenant.name,
            key.id,
            self.created_at,
            self.endpoint.path,
            assignment.alias,
            assignment.revision,
            assignment.experiment,
            assignment.variant,
            str(assignment.ref) if assignment.ref is not None else BASE,
            served,
            digest,
            assignment.reason,
            assignment.propensity,
            self.unit or unit_of(self.snapshot.secret, tenant.name, self.targeting_key),
            self.episode,
            request.stream,
            request.params(),
            self.status,
            self.outcome,
            notes.finish_reason,
            notes.input_tokens,
            notes.output_tokens,
            (begun - self.began) * 1e3 if begun is not None and request.stream else None,
            (now - self.began) * 1e3,
            (begun - self.began - self.waited) * 1e3 if begun is not None else None,
            trace.trace_id if trace is not None else None,
            trace.span_id if trace is not None else None,
            messages=request.messages() if keeps and len(self.call.body) <= MOST_KEPT else None,
            answer=notes.text,
        )

    def _served(self) -> tuple[str | None, str | None]:
        if not self.answered or self.lease is None:
            return None, None
        ref = self.lease.ref
        adapter = self.snapshot.adapters.get(ref) if ref is not None else None
        return (self.lease.seat.name if ref is not None else BASE), adapter.digest if adapter is not None else None

    def _notes(self) -> Notes:
        answers = self.endpoint.answers
        if self.events is not None:
            return answers.of_stream(self.events, keep=self.keeps)
        return answers.of_body(self.body, keep=self.keeps and len(self.body) <= MOST_KEPT) if self.body else NOTHING
