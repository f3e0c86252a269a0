"""Telemetry under its conventions' names: what a request leaves behind, and what it never does."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    MetricExporter,
    MetricExportResult,
    MetricsData,
)

from gateway.errors import Unavailable
from gateway.telemetry import Telemetry, names
from gateway.telemetry.counts import Buckets, Family
from gateway.telemetry.logs import JsonFormatter
from gateway.telemetry.traces import begin
from tests.gateway.serving.house import HELLO, House, Signals, alias, open_house, picture
from tests.gateway.spans import KeptSpans, attributes_of

SECRET_TEXT = "my very private question"


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house() as one:
        yield one


async def ask(house: House, **more: Any) -> httpx.Response:
    said = [{"role": "user", "content": SECRET_TEXT}]
    return await house.post({"model": "support", "messages": said, "user": "u-1", **more})


def samples(text: bytes) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def test_a_request_is_a_span_with_its_assignment() -> None:
    running = alias("acme", "support", ("base", 1, None), ("tuned", 1, "acme/support@1"), experiment="exp-1")
    async with open_house(picture(aliases=[running])) as house:
        answer = await ask(house, stream=True)
        row = house.records.rows[-1]
        house.telemetry.shutdown()
        (span,) = house.spans.finished()
        told = attributes_of(span.attributes)
        assert span.name == "chat support" and told[names.OPERATION] == "chat"
        assert told[names.REQUEST_MODEL] == "support" and told[names.RESPONSE_MODEL] == row.served
        assert told[names.INPUT_TOKENS] == row.input_tokens and told[names.OUTPUT_TOKENS] == 6
        assert told[names.FINISH_REASONS] == ("stop",) and told[names.EXPERIMENT] == "exp-1"
        assert span.trace_id.hex() == row.trace_id == row.id[:32]
        assert span.span_id.hex() == row.span_id
        (event,) = span.events
        flags = attributes_of(event.attributes)
        assert event.name == "feature_flag.evaluation"
        assert flags[names.FLAG_KEY] == "support" and flags[names.FLAG_VARIANT] == answer.headers["x-variant"]
        assert flags[names.FLAG_CONTEXT] == row.unit and flags[names.FLAG_SET] == "acme"
        everything = str(span) + house.telemetry.metrics_text().decode()
        assert SECRET_TEXT not in everything and "u-1" not in everything and "key-of" not in everything


async def test_a_clients_trace_is_continued_and_its_choice_kept(house: House) -> None:
    theirs, parent = "a" * 32, "b" * 16
    await house.post({"model": "tuned", "messages": HELLO}, traceparent=f"00-{theirs}-{parent}-01")
    await house.post({"model": "tuned", "messages": HELLO}, traceparent=f"00-{theirs}-{parent}-00")
    house.telemetry.shutdown()
    (span,) = house.spans.finished()
    assert span.trace_id.hex() == theirs and span.parent_span_id.hex() == parent


async def test_errors_are_in_the_span_and_the_metrics_by_their_code(house: House) -> None:
    await house.faults(fail_requests=1)
    await house.post({"model": "tuned", "messages": HELLO})
    await house.post({"model": "none", "messages": HELLO})
    text = house.telemetry.metrics_text()
    house.telemetry.shutdown()
    (span,) = house.spans.finished()
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes_of(span.attributes)[names.ERROR_TYPE] == "engine_failed"
    told = samples(text)
    assert any("gen_ai_server_request_duration" in name and 'error_type="engine_failed"' in name for name in told)
    assert any("http_server_request_duration" in name and 'http_response_status_code="404"' in name for name in told)
    # A name that a client made up is no label: it would let anybody grow the metrics without bound.
    assert not any('"none"' in name for name in told)


async def test_prometheus_reads_the_conventions_metrics(house: House) -> None:
    await house.post({"model": "tuned", "messages": HELLO, "stream": True})
    told = samples(house.telemetry.metrics_text())
    for metric in (
        "gen_ai_server_request_duration_seconds",
        "gen_ai_server_time_to_first_token_seconds",
        "gen_ai_server_time_per_output_token_seconds",
        "gen_ai_client_token_usage",
        "http_server_request_duration_seconds",
        "tuneloop_gateway_overhead_seconds",
    ):
        counts = [value for name, value in told.items() if name.startswith(f"{metric}_count")]
        assert counts and sum(counts) >= 1, metric
    usage = {name: value for name, value in told.items() if name.startswith("gen_ai_client_token_usage_sum")}
    assert any('gen_ai_token_type="output"' in name and value == 6 for name, value in usage.items())
    assert told["tuneloop_residency_resident"] == 2 and "tuneloop_requests_open" in told
    assert told["process_resident_memory_bytes"] > 0


def test_without_sampling_no_span_is_made_and_the_engine_is_told() -> None:
    telemetry = Telemetry(Signals(trace_ratio=0.0), span_sender=KeptSpans())
    trace = telemetry.begin(None, "c" * 32)
    assert not trace.sampled and trace.header().endswith(b"-00") and trace.trace_id == "c" * 32
    telemetry.shutdown()


@given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
def test_any_traceparent_leads_to_a_valid_one(given_header: bytes) -> None:
    header = begin(given_header, "d" * 32, 0.5).header()
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", header)
    assert header[3:35] != b"0" * 32 and header[36:52] != b"0" * 16


@given(st.lists(st.floats(0, 1000)))
def test_buckets_count_as_the_sdk_does(values: list[float]) -> None:
    bounds = (0.1, 1.0, 10.0)
    buckets = Buckets(bounds, {})
    for value in values:
        buckets.record(value)
    edges = [float("-inf"), *bounds, float("inf")]
    expected = [sum(low < value <= high for value in values) for low, high in pairwise(edges)]
    for _ in range(2):
        assert buckets.fold() == (expected, pytest.approx(sum(values)))


def test_series_are_bounded() -> None:
    family = Family("x", "s", (1.0,), "", most=3)
    for number in range(100):
        family.series({"n": number}).record(0.5)
    metric = family.metric(time.time_ns())
    assert metric is not None and isinstance(metric.data, Histogram)
    assert len(metric.data.data_points) == 4
    assert sum(point.count for point in metric.data.data_points) == 100


class Kept(MetricExporter):
    """An exporter that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__(preferred_temporality=dict.fromkeys((), AggregationTemporality.CUMULATIVE))
        self.data: list[MetricsData] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        self.data.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        return None


def test_a_push_exporter_gets_the_same_metrics() -> None:
    kept = Kept()
    telemetry = Telemetry(Signals(), metric_exporter=kept)
    telemetry.http("POST", "/v1/completions", 200, 0.5)
    telemetry.observe("tuneloop.recorder.dropped", lambda: 3, counter=True)
    telemetry.shutdown()
    (resource,) = kept.data[-1].resource_metrics
    told = {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
    assert {names.HTTP_DURATION, "tuneloop.recorder.dropped"} <= told
    assert resource.resource.attributes["service.name"] == "tuneloop-gateway"


async def test_a_collector_that_is_down_has_no_effect() -> None:
    down: Any = OTLPSpanExporter(endpoint="http://127.0.0.1:9/v1/traces", timeout=1)
    telemetry = Telemetry(Signals(), span_sender=down._client)
    async with open_house(telemetry=telemetry) as house:
        for _ in range(5):
            assert (await ask(house)).status_code == 200


SPEAKER = """
import logging
from gateway.telemetry import configure_logging, trace_id
configure_logging()
trace_id.set("e" * 32)
logging.getLogger("gateway.test").warning("something %s", "odd", extra={"ref": "acme/support@1"})
"""


def test_logs_are_json_lines_with_their_trace() -> None:
    # In a process of its own: pytest has its hands on this one's loggers.
    said = subprocess.run([sys.executable, "-c", SPEAKER], capture_output=True, text=True, check=True)
    line = json.loads(said.stderr)
    assert line["message"] == "something odd" and line["ref"] == "acme/support@1"
    assert line["trace_id"] == "e" * 32 and line["level"] == "warning" and line["time"].endswith("+00:00")


CALLER = """
import httpx
from gateway.telemetry import configure_logging
configure_logging()
def receiver(environ, start):
    start("200 OK", [])
    return [b"taken"]
httpx.Client(transport=httpx.WSGITransport(receiver)).post("http://receiver/hooks/a-secret").raise_for_status()
"""


def test_an_address_that_may_hold_a_secret_is_not_logged() -> None:
    said = subprocess.run([sys.executable, "-c", CALLER], capture_output=True, text=True, check=True)
    assert said.stderr == ""


def test_a_traceback_is_one_line_of_json_with_kinds_and_places_and_no_text_that_could_quote_a_row() -> None:
    row = "Key (answer)=(what a user said) already exists"

    def refuse() -> None:
        try:
            raise ValueError(row)
        except ValueError as error:
            raise ExceptionGroup(row, [KeyError(row), Unavailable("Nobody is there.")]) from error

    try:
        refuse()
    except ExceptionGroup:
        record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "m", (), None)
        record.exc_info = sys.exc_info()
    told = JsonFormatter().format(record)
    lines = json.loads(told)["exception"].split("\n")
    assert "\n" not in told and "answer" not in told
    assert lines[1:3] == ["ValueError", "and then"] and lines[0].endswith(" refuse")
    assert lines[-3:] == ["ExceptionGroup", "  KeyError", "  gateway.errors.Unavailable: Nobody is there."]
