"""Feedback as operations see it."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter

from gateway.telemetry import Telemetry


@dataclass(frozen=True)
class Quiet:
    trace_ratio: float = 0.0
    otlp_signals: frozenset[str] = frozenset()


def test_a_judgement_is_an_event_of_the_answers_own_span() -> None:
    exporter = InMemoryLogRecordExporter()
    telemetry = Telemetry(Quiet(), event_exporter=exporter)
    telemetry.judged("resolved", True, inference="abc", trace_id="ab" * 16, span_id="cd" * 8)
    telemetry.judged("comment", None, inference="abc", trace_id=None, span_id=None)
    telemetry.shutdown()
    judged, said = (entry.log_record for entry in exporter.get_finished_logs())
    assert judged.event_name == said.event_name == "gen_ai.evaluation.result"
    assert judged.trace_id == int("ab" * 16, 16)
    assert judged.span_id == int("cd" * 8, 16)
    assert judged.attributes == {
        "gen_ai.evaluation.name": "resolved",
        "gen_ai.response.id": "abc",
        "gen_ai.evaluation.score.label": "pass",
        "gen_ai.evaluation.score.value": 1.0,
    }
    assert said.attributes == {"gen_ai.evaluation.name": "comment", "gen_ai.response.id": "abc"}
