"""OpenTelemetry's events: what was said of an answer, a child of the answer's own span (never what the words were), and
what experiments came to."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context


class Events:
    """Events on their way to a collector. One that is down costs what is queued, nothing else."""

    def __init__(self, resource: Resource, exporter: LogRecordExporter) -> None:
        self._provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
        self._logger = self._provider.get_logger("gateway")

    def emit(
        self, name: str, attributes: Mapping[str, str | float], *, trace_id: str | None, span_id: str | None
    ) -> None:
        """One event, at the span given by 32 and 16 hex digits where that is known."""
        context = Context()
        if trace_id is not None and span_id is not None:
            parent = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(1))
            context = set_span_in_context(NonRecordingSpan(parent), context)
        self._logger.emit(event_name=name, attributes=dict(attributes), context=context)

    def shutdown(self) -> None:
        self._provider.shutdown()
