"""A request's place in a trace: taken from the client's `traceparent` or begun here, and handed on to the engine.

Most requests are not sampled and cost no span at all, only the 55 bytes of a header; a sampled one's span is made after
the answer has left, with the ids that went upstream.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from threading import Event, Thread
from typing import cast

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

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


class _GivenIds(IdGenerator):
    """The ids were chosen when the request came in; the SDK asks for them when the span is made."""

    def __init__(self) -> None:
        self.trace: Trace = Trace("1" * 32, "1" * 16, None, False)

    def generate_span_id(self) -> int:
        return int(self.trace.span_id, 16)

    def generate_trace_id(self) -> int:
        return int(self.trace.trace_id, 16)


class Spans:
    """Makes finished spans. One thread only: the event loop's."""

    def __init__(self, resource: Resource, processor: SpanProcessor) -> None:
        self._ids = _GivenIds()
        provider = TracerProvider(resource=resource, sampler=ALWAYS_ON, id_generator=self._ids)
        provider.add_span_processor(processor)
        self._provider = provider
        self._tracer = provider.get_tracer("gateway")

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
        self._ids.trace = trace
        context = None
        if trace.parent is not None:
            parent = SpanContext(
                int(trace.trace_id, 16), int(trace.parent, 16), is_remote=True, trace_flags=TraceFlags(1)
            )
            context = set_span_in_context(NonRecordingSpan(parent))
        span = self._tracer.start_span(
            name, context=context, kind=SpanKind.SERVER, attributes=attributes, start_time=began
        )
        span.add_event(event[0], event[1], timestamp=began)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_time=ended)

    def shutdown(self) -> None:
        self._provider.shutdown()


class SentSpans:
    """As `Spans`, for a collector: encoded at once, sent each second by a thread that does nothing else.

    The SDK's exporter sends them, with all its variables (endpoint, headers, certificates, compression) and retries. A
    collector that is away costs what does not fit into `most`.
    """

    def __init__(self, resource: Resource, exporter: OTLPSpanExporter, *, most: int = 8192) -> None:
        self._resource = cast(Mapping[str, Value], dict(resource.attributes))
        self._exporter, self._most = exporter, most
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
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK's own omission

    def _run(self) -> None:
        while not self._over.wait(SEND_SECONDS):
            self._send()
        self._send()

    def _send(self) -> None:
        spans, self._kept = self._kept, []
        if spans:
            # The part of the exporter that sends bytes has no public name. It logs what goes wrong, and never raises.
            self._exporter._client.export(otlp.request(self._resource, "gateway", spans))
