"""Spans on the wire: what we encode is what the SDK's own encoder makes of the same span."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
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
from gateway.telemetry.traces import Spans, Trace

hexes = st.integers(1, 2**63).map(lambda n: f"{n:016x}")
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
values = words | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)
attributes = st.dictionaries(words.filter(bool), values | st.lists(words, max_size=3), max_size=6)
RESOURCE = Resource({"service.name": "tuneloop-gateway", "n": 3})


@given(
    st.tuples(hexes, hexes, hexes, st.none() | hexes),
    words,
    attributes,
    st.tuples(words, attributes),
    st.integers(1, 2**62),
    st.none() | words,
)
def test_a_span_is_encoded_as_the_sdk_does(
    ids: tuple[str, str, str, str | None], name: str, told: Any, event: Any, began: int, error: str | None
) -> None:
    trace = Trace(ids[0] + ids[1], ids[2], ids[3], True)
    said: dict[str, Any] = {"attributes": told, "event": event, "began": began, "ended": began + 5, "error": error}
    expected = encode_spans([sdk_span(trace, name, **said)])
    span = otlp.span(trace.trace_id, trace.span_id, trace.parent, name, **said)
    ours = ExportTraceServiceRequest.FromString(otlp.request(dict(RESOURCE.attributes), "gateway", [span]))
    for one in (expected, ours):  # an empty trace state is written by one and left out by the other
        one.resource_spans[0].scope_spans[0].spans[0].ClearField("trace_state")
    assert ours == expected


def sdk_span(trace: Trace, name: str, *, attributes: Any, event: Any, began: int, ended: int, error: str | None) -> Any:
    """The span as the SDK makes it."""

    class GivenIds(IdGenerator):
        def generate_span_id(self) -> int:
            return int(trace.span_id, 16)

        def generate_trace_id(self) -> int:
            return int(trace.trace_id, 16)

    ids = (int(trace.trace_id, 16), int(trace.parent or "0", 16))
    parent = NonRecordingSpan(SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(1)))
    context = set_span_in_context(parent) if trace.parent is not None else None
    tracer = TracerProvider(resource=RESOURCE, sampler=ALWAYS_ON, id_generator=GivenIds()).get_tracer("gateway")
    span = tracer.start_span(name, context, SpanKind.SERVER, attributes, start_time=began)
    span.add_event(event[0], event[1], timestamp=began)
    if error is not None:
        span.set_status(Status(StatusCode.ERROR, error))
    span.end(end_time=ended)
    return span


@contextmanager
def collector(got: list[bytes], status: int = 200) -> Iterator[str]:
    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — the base class names it so
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    server.shutdown()


def test_what_was_kept_is_sent_at_the_end_and_what_does_not_fit_is_left_out() -> None:
    got: list[bytes] = []
    with collector(got) as url:
        exporter: Any = OTLPSpanExporter(url)
        spans = Spans(RESOURCE, exporter._client, most=10)
        for number in range(30):
            trace = Trace(f"{number + 1:032x}", "b" * 16, None, True)
            spans.finish(trace, "chat", attributes={"n": number}, event=("e", {}), began=1, ended=2, error=None)
        spans.shutdown()
    sent = [ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans for body in got]
    assert [span.trace_id.hex() for batch in sent for span in batch] == [f"{n + 1:032x}" for n in range(10)]
