"""What of the evaluation runs in every worker: the rounds, which one of them makes, and the webhook's messenger."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from gateway.control.experiments import Experiments
from gateway.evaluation.judging import Judging
from gateway.evaluation.keeping import Keeping
from gateway.evaluation.news import Events, News, tell
from gateway.evaluation.rounds import Gauges, Rounds
from gateway.loops import Loop
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.telemetry import names


class Telemetry(Events, Gauges, Protocol):
    """As `telemetry.Telemetry`."""


def loops_of(
    db: Database, judging: Judging, experiments: Experiments, settings: Settings, telemetry: Telemetry
) -> tuple[Loop, ...]:
    """Endless loops for the app. News go to the log, to `telemetry` and, if settings name one, to a webhook."""
    telemetry.observe(names.EVALUATION_SET_ASIDE, lambda: judging.set_aside)
    url, secret = settings.webhook.url, settings.webhook.secret
    keeping, seconds = Keeping(db, webhook=url is not None), settings.evaluation_seconds
    if url is None or secret is None:
        told = partial(tell, events=telemetry)
        return (Rounds(db, judging, keeping, experiments, seconds=seconds, tell=told, gauges=telemetry).run,)

    from gateway.evaluation.webhook import Webhook  # with it comes an HTTP client that nobody else here needs

    messenger = Webhook(db, url, secret.get_secret_value())

    def told_and_sent(news: News) -> None:
        tell(news, telemetry)
        messenger.wake()

    rounds = Rounds(db, judging, keeping, experiments, seconds=seconds, tell=told_and_sent, gauges=telemetry)
    return rounds.run, messenger.run
