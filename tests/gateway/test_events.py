"""Feedback and experiments as operations see them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter

from gateway.evaluation.news import News, tell
from gateway.experiment import Stage
from gateway.telemetry import Telemetry
from tests.gateway.evaluation.verdicts import experiment


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


def test_what_an_experiment_came_to_is_an_event_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    exporter = InMemoryLogRecordExporter()
    telemetry = Telemetry(Quiet(), event_exporter=exporter)
    ended = experiment(Stage.ROLLED_BACK)
    news = News("stage", ended, "canary", "rolled_back", "error_rate got worse", "rule", datetime.now(UTC), {})
    with caplog.at_level(logging.WARNING):
        tell(news, telemetry)
    telemetry.shutdown()
    (event,) = (entry.log_record for entry in exporter.get_finished_logs())
    assert event.event_name == "tuneloop.experiment.stage"
    assert event.attributes == {
        "tuneloop.tenant": "acme",
        "tuneloop.experiment": "exp-1",
        "feature_flag.key": "support",
        "tuneloop.change.from": "canary",
        "tuneloop.change.to": "rolled_back",
        "tuneloop.change.reason": "error_rate got worse",
        "tuneloop.change.actor": "rule",
    }
    (line,) = caplog.records
    assert (line.message, vars(line)["event"], vars(line)["by"]) == ("experiment", "experiment.stage", "rule")
