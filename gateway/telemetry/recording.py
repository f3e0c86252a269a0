"""The one instrumentation: called once per request with what is known of it at its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk._logs.export import LogRecordExporter
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from gateway.telemetry import names
from gateway.telemetry.counts import Attributes, Buckets, Family, Reading
from gateway.telemetry.events import Events
from gateway.telemetry.finished import Finished
from gateway.telemetry.traces import Sender, Spans, Trace, Value, begin, sdk_sender


class TelemetrySettings(Protocol):
    """`otlp_signals`: those of "traces", "metrics" and "logs" for which OTEL_EXPORTER_OTLP_* names an endpoint."""

    @property
    def trace_ratio(self) -> float: ...

    @property
    def otlp_signals(self) -> frozenset[str]: ...


class _Model:
    """The histograms of one combination of operation, tenant, alias, served version and error."""

    __slots__ = ("duration", "first", "input", "output", "per_token")

    def __init__(self, families: _Families, attributes: Attributes) -> None:
        self.duration = families.duration.series(attributes)
        self.first = families.first.series(attributes)
        self.per_token = families.per_token.series(attributes)
        self.input = families.usage.series({**attributes, names.TOKEN_TYPE: "input"})
        self.output = families.usage.series({**attributes, names.TOKEN_TYPE: "output"})


class _Families:
    def __init__(self) -> None:
        self.duration = Family(
            names.REQUEST_DURATION, "s", names.DURATION_BOUNDS, "Time to the last byte of an answer."
        )
        self.first = Family(names.TIME_TO_FIRST_TOKEN, "s", names.FIRST_TOKEN_BOUNDS, "Time to a stream's first token.")
        self.per_token = Family(
            names.TIME_PER_OUTPUT_TOKEN, "s", names.PER_TOKEN_BOUNDS, "Time per token of a stream after its first."
        )
        self.usage = Family(names.TOKEN_USAGE, "{token}", names.USAGE_BOUNDS, "Tokens of a request.")
        self.http = Family(names.HTTP_DURATION, "s", names.HTTP_BOUNDS, "Time to the last byte, by route and status.")
        self.overhead = Family(names.OVERHEAD, "s", names.OVERHEAD_BOUNDS, "The gateway's own part of the first byte.")

        self.lag = Family(names.LOOP_LAG, "s", names.LOOP_LAG_BOUNDS, "How late the event loop comes to what is due.")

    def all(self) -> tuple[Family, ...]:
        return (self.duration, self.first, self.per_token, self.usage, self.http, self.overhead, self.lag)


class Telemetry:
    """Of one worker. A collector that is down costs queued spans, nothing else: exporters run in the SDK's threads."""

    def __init__(
        self,
        settings: TelemetrySettings,
        *,
        span_sender: Sender | None = None,
        metric_exporter: MetricExporter | None = None,
        event_exporter: LogRecordExporter | None = None,
    ) -> None:
        self._ratio = settings.trace_ratio
        self._resource = Resource.create({"service.name": "tuneloop-gateway"})
        self._families = _Families()
        self._models: dict[tuple[str, str, str, str | None, str | None], _Model] = {}
        self._routes: dict[tuple[str, str, int], Buckets] = {}
        self._overhead = self._families.overhead.series({})
        self._readings: list[Reading] = []
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._attach(PrometheusMetricReader(scope_info_enabled=False, registry=self._registry))
        self._readers: list[MetricReader] = []
        if metric_exporter is None and "metrics" in settings.otlp_signals:
            metric_exporter = OTLPMetricExporter()
        if metric_exporter is not None:
            self._readers.append(self._attach(PeriodicExportingMetricReader(metric_exporter)))
        if span_sender is None and "traces" in settings.otlp_signals:
            span_sender = sdk_sender()
        self._spans = Spans(self._resource, span_sender) if span_sender is not None else None
        if event_exporter is None and "logs" in settings.otlp_signals:
            event_exporter = OTLPLogExporter()
        self._events = Events(self._resource, event_exporter) if event_exporter is not None else None

    def begin(self, traceparent: bytes | None, fresh: str) -> Trace:
        """Where a request stands in a trace. `fresh`: 32 hex for a new one."""
        return begin(traceparent, fresh, self._ratio)

    def request(self, finished: Finished, trace: Trace, *, operation: str, error: str | None) -> None:
        """Count one completion request that was assigned to something; keep its span if it is sampled."""
        key = (operation, finished.tenant, finished.alias, finished.served, error)
        model = self._models.get(key)
        if model is None:
            model = self._new_model(key)
        seconds = (finished.duration_ms or 0.0) / 1e3
        model.duration.record(seconds)
        if finished.input_tokens is not None:
            model.input.record(finished.input_tokens)
        tokens = finished.output_tokens
        if tokens is not None:
            model.output.record(tokens)
        if finished.ttft_ms is not None:
            first = finished.ttft_ms / 1e3
            model.first.record(first)
            if tokens is not None and tokens > 1:
                model.per_token.record((seconds - first) / (tokens - 1))
        if finished.overhead_ms is not None:
            self._overhead.record(finished.overhead_ms / 1e3)
        if trace.sampled and self._spans is not None:
            self._keep_span(self._spans, finished, trace, operation, error)

    def judged(
        self, metric: str, value: bool | float | None, *, inference: str, trace_id: str | None, span_id: str | None
    ) -> None:
        """Tell of one judgement of an answer; `value` is None where it is made of words."""
        if self._events is None:
            return
        attributes: dict[str, str | float] = {names.JUDGED_METRIC: metric, names.RESPONSE_ID: inference}
        if isinstance(value, bool):
            attributes[names.JUDGED_LABEL] = "pass" if value else "fail"
        if value is not None:
            attributes[names.JUDGED_SCORE] = float(value)
        self._events.emit(names.JUDGED, attributes, trace_id=trace_id, span_id=span_id)

    def changed(self, event: str, attributes: Mapping[str, str | None]) -> None:
        """Tell that something of ours is otherwise now, in `names`' words; what is None is left out."""
        if self._events is not None:
            known = {name: value for name, value in attributes.items() if value is not None}
            self._events.emit(event, known, trace_id=None, span_id=None)

    def http(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one HTTP request. `route` is one of ours, never the path a client sent."""
        key = (method, route, status)
        buckets = self._routes.get(key)
        if buckets is None:
            attributes: Attributes = {names.METHOD: method, names.ROUTE: route, names.STATUS_CODE: status}
            buckets = self._routes[key] = self._families.http.series(attributes)
        buckets.record(seconds)

    def observe(self, name: str, read: Callable[[], float], *, counter: bool = False) -> None:
        """Show a number that its owner keeps."""
        self._readings.append(Reading(name, read, counter=counter))

    async def run(self) -> None:
        """Look ten times a second how late the event loop is, and count once a second, until cancelled."""
        lag, now = self._families.lag.series({}), asyncio.get_running_loop().time
        while True:
            for _ in range(10):
                due = now() + 0.1
                await asyncio.sleep(0.1)
                lag.record(max(0.0, now() - due))
            for family in self._families.all():
                family.fold()

    def metrics_text(self) -> bytes:
        """What Prometheus reads, in its text format."""
        return generate_latest(self._registry)

    def shutdown(self) -> None:
        """Send what is queued and stop the exporters' threads. Blocks for up to some seconds."""
        for reader in self._readers:
            reader.shutdown()
        if self._spans is not None:
            self._spans.shutdown()
        if self._events is not None:
            self._events.shutdown()

    def _new_model(self, key: tuple[str, str, str, str | None, str | None]) -> _Model:
        operation, tenant, alias, served, error = key
        attributes: dict[str, str | int | bool] = {
            names.OPERATION: operation,
            names.PROVIDER: "vllm",
            names.REQUEST_MODEL: alias,
            names.TENANT: tenant,
        }
        if served is not None:
            attributes[names.RESPONSE_MODEL] = served
        if error is not None:
            attributes[names.ERROR_TYPE] = error
        model = _Model(self._families, attributes)
        self._models[key] = model
        return model

    def _attach(self, reader: MetricReader) -> MetricReader:
        # The callback is how the SDK's own MeterProvider feeds its readers. We keep our own counts (see the package's
        # first lines) and want the readers' timing, environment variables and formats all the same.
        reader._set_collect_callback(self._collect)
        return reader

    def _collect(self, _reader: MetricReader, timeout_millis: float = 0) -> MetricsData:
        now = time.time_ns()
        metrics = [metric for family in self._families.all() if (metric := family.metric(now)) is not None]
        metrics += [reading.metric(now) for reading in self._readings]
        scope = ScopeMetrics(InstrumentationScope("gateway"), metrics, schema_url="")
        return MetricsData([ResourceMetrics(self._resource, [scope], schema_url="")])

    def _keep_span(self, spans: Spans, finished: Finished, trace: Trace, operation: str, error: str | None) -> None:
        began = int(finished.created_at.timestamp() * 1e9)
        spans.finish(
            trace,
            f"{operation} {finished.alias}",
            attributes=_span_attributes(finished, operation, error),
            event=(names.EVALUATION, _evaluation(finished)),
            began=began,
            ended=began + int((finished.duration_ms or 0.0) * 1e6),
            error=error,
        )


def _span_attributes(finished: Finished, operation: str, error: str | None) -> dict[str, Value]:
    reasons: Sequence[str] | None = [finished.finish_reason] if finished.finish_reason else None
    attributes: dict[str, Any] = {
        names.OPERATION: operation,
        names.PROVIDER: "vllm",
        names.REQUEST_MODEL: finished.alias,
        names.RESPONSE_MODEL: finished.served,
        names.RESPONSE_ID: finished.id,
        names.FINISH_REASONS: reasons,
        names.INPUT_TOKENS: finished.input_tokens,
        names.OUTPUT_TOKENS: finished.output_tokens,
        names.TENANT: finished.tenant,
        names.EXPERIMENT: finished.experiment,
        names.ROUTE: finished.endpoint,
        names.STATUS_CODE: finished.status,
        names.ERROR_TYPE: error,
        names.TIME_TO_FIRST_TOKEN: finished.ttft_ms / 1e3 if finished.ttft_ms is not None else None,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _evaluation(finished: Finished) -> dict[str, Value]:
    """The A/B exposure. The context is the unit: a keyed hash, never the targeting key."""
    return {
        names.FLAG_KEY: finished.alias,
        names.FLAG_VARIANT: finished.variant,
        names.FLAG_REASON: finished.reason,
        names.FLAG_CONTEXT: finished.unit,
        names.FLAG_SET: finished.tenant,
        names.FLAG_VERSION: str(finished.alias_revision),
    }
