"""What is told of an experiment, and in which words: to the log, to OpenTelemetry, to a webhook. It decides nothing."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from gateway.experiment import Experiment
from gateway.telemetry import names

log = logging.getLogger("gateway.evaluation")


@dataclass(frozen=True, slots=True)
class News:
    """`kind` of the experiment ("stage" or "verdict") went from `before` (None: there was none) to `after`.

    `actor` did it: "rule", "operator", a key; None where nobody did, as with a verdict. `figures` is JSON.
    """

    kind: str
    experiment: Experiment
    before: str | None
    after: str
    why: str
    actor: str | None
    at: datetime
    figures: Mapping[str, Any]


class Events(Protocol):
    """As `telemetry.Telemetry`."""

    def changed(self, event: str, attributes: Mapping[str, str | None]) -> None: ...


def tell(news: News, events: Events | None) -> None:
    """Say it in the log and as an event. Neither waits for anybody."""
    about = news.experiment
    log.warning(
        "experiment",
        extra={
            "event": f"experiment.{news.kind}",
            "tenant": about.tenant,
            "experiment": about.id,
            "alias": about.alias,
            "from": news.before,
            "to": news.after,
            "why": news.why,
            "by": news.actor,
        },
    )
    if events is not None:
        events.changed(
            names.STAGE_CHANGED if news.kind == "stage" else names.VERDICT_CHANGED,
            {
                names.TENANT: about.tenant,
                names.EXPERIMENT: about.id,
                names.FLAG_KEY: about.alias,
                names.CHANGE_FROM: news.before,
                names.CHANGE_TO: news.after,
                names.CHANGE_REASON: news.why,
                names.CHANGE_ACTOR: news.actor,
            },
        )


def message(news: News) -> tuple[str, str]:
    """As a webhook's message: its id and its body."""
    about = news.experiment
    body = {
        "type": f"experiment.{news.kind}",
        "timestamp": news.at.isoformat(),
        "data": {
            "tenant": about.tenant,
            "experiment": about.id,
            "name": about.name,
            "alias": about.alias,
            "stage": about.stage.value,
            "from": news.before,
            "to": news.after,
            "why": news.why,
            "by": news.actor,
            "figures": news.figures,
        },
    }
    return f"msg_{secrets.token_hex(12)}", json.dumps(body, ensure_ascii=False)
