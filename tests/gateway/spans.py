"""A collector in memory: takes the requests that a worker sends, and reads their spans as OTLP has them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class KeptSpans:
    """`requests` are the bytes as they would have been posted."""

    requests: list[bytes] = field(default_factory=list)

    def export(self, request: bytes) -> None:
        self.requests.append(request)

    def shutdown(self) -> None:
        """Nothing is left to send."""

    def finished(self) -> list[Any]:
        """The spans of all requests, in their order."""
        told = [ExportTraceServiceRequest.FromString(request) for request in self.requests]
        return [
            span for one in told for sent in one.resource_spans for scope in sent.scope_spans for span in scope.spans
        ]


def attributes_of(told: Iterable[Any]) -> dict[str, Any]:
    """Attributes as names and values; a list as a tuple."""
    return {one.key: _value(one.value) for one in told}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return tuple(_value(one) for one in value.array_value.values) if kind == "array_value" else getattr(value, kind)
