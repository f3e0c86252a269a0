"""A request's place in a trace: taken from the client's `traceparent` or begun here, and handed on to the engine.

Most requests are not sampled and cost no span at all, only the 55 bytes of a header; a sampled one's span is made after
the answer has left, with the ids that went upstream.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from threading import Event, Thread
from typing import Protocol, cast

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource

from gateway.telemetry import otlp

SEND_SECONDS = 1.0

Value = str | int | float | bool | Sequence[str]

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16


class Trace(msgspec.Struct, frozen=True):
    """32 hex of the trace, 16 of our span, 16 of the client's if it sent one, and whether the span will be kept."""

    trace_id: str
    span_id: str
    parent: str | None
    sampled: bool

    def header(self) -> bytes:
        """The `traceparent` for the engine."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}".encode()


def begin(traceparent: bytes | None, fresh: str, ratio: float) -> Trace:
    """Continue the client's trace if it sent a valid one (who keeps its trace keeps our part); else begin `fresh`."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent is not None else None
    if found is None or found[1] == b"ff" or found[2] == _NO_TRACE or found[3] == _NO_SPAN:
        return Trace(fresh, _new_span(), None, random.random() < ratio)
    return Trace(found[2].decode(), _new_span(), found[3].decode(), bool(int(found[4], 16) & 1))


def _new_span() -> str:
    return "%016x" % (random.getrandbits(64) or 1)


class Sender(Protocol):
    """Who takes an OTLP request's bytes to a collector, and never raises."""

    def export(self, request: bytes, /) -> object: ...

    def shutdown(self) -> None: ...


def sdk_sender() -> Sender:
    """The SDK's, with all its variables (endpoint, headers, certificates, compression) and its retries. The part of its
    exporter that sends bytes has no public name."""
    sender: Sender = OTLPSpanExporter()._client
    return sender


class Spans:
    """Finished spans on their way to a collector: encoded at once, sent each second by a thread that does nothing else.

    A collector that is away costs what does not fit into `most`.
    """

    def __init__(self, resource: Resource, sender: Sender, *, most: int = 8192) -> None:
        self._resource = cast(Mapping[str, Value], dict(resource.attributes))
        self._sender, self._most = sender, most
        self._kept: list[bytes] = []
        self._over = Event()
        self._thread = Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def finish(
        self,
        trace: Trace,
        name: str,
        *,
        attributes: Mapping[str, Value],
        event: tuple[str, Mapping[str, Value]],
        began: int,
        ended: int,
        error: str | None,
    ) -> None:
        """Keep one span, with one event at its beginning. Times in nanoseconds since 1970."""
        if len(self._kept) < self._most:
            told = otlp.span(
                trace.trace_id,
                trace.span_id,
                trace.parent,
                name,
                attributes=attributes,
                event=event,
                began=began,
                ended=ended,
                error=error,
            )
            self._kept.append(told)

    def shutdown(self) -> None:
        """Send what is there, for a second or two."""
        self._over.set()
        self._thread.join(timeout=2)
        self._sender.shutdown()

    def _run(self) -> None:
        while not self._over.wait(SEND_SECONDS):
            self._send()
        self._send()

    def _send(self) -> None:
        spans = self._kept[:]
        if spans:
            del self._kept[: len(spans)]  # what came in between stays
            self._sender.export(otlp.request(self._resource, "gateway", spans))
