"""Writes down what was found, and in the same transaction that it must be told: a crash in between loses nothing.

A look is kept when it changes the word or when the one before is older than a 200th of the experiment's age: 200 looks
for the first 200 periods, 200 more for each time that the age grows e-fold, some 1,600 for a month at 10 seconds.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime

from gateway.evaluation import figures
from gateway.evaluation.news import News, message
from gateway.experiment import Experiment
from gateway.findings import Block, Verdict
from gateway.store import experiments, looks, outbox
from gateway.store.database import Connection, Database

PER_AGE = 200


class Keeping:
    """`webhook`: somebody is to be sent the news. All raise `Unavailable`."""

    def __init__(self, db: Database, *, webhook: bool) -> None:
        self._db = db
        self._webhook = webhook

    async def verdict(self, experiment: Experiment, verdict: Verdict, at: datetime) -> list[News]:
        """Keep what one look found; news if its word is another than the one before.

        Every experiment begins with too few units, and nobody wants to hear of it.
        """
        async with self._db.transaction() as connection:
            before = await looks.state(connection, experiment.id, lock=True)
            await looks.keep(
                connection,
                experiment.id,
                word=verdict.word.value,
                verdict=figures.whole(verdict),
                at=at,
                look=figures.brief(verdict) if due(before, experiment, verdict, at) else None,
            )
            word = before.word if before else None
            if word == verdict.word.value or (word is None and verdict.blocks == (Block.TOO_FEW_UNITS,)):
                return []
            brief = figures.brief(verdict)
            news = News("verdict", experiment, word, verdict.word.value, verdict.sentence, None, at, brief)
            await self._post(connection, news)
        return [news]

    async def stages(self, at: datetime, *, but: Container[str] = ()) -> list[News]:
        """News of every experiment whose stage is another than the one that was told last; `but` are ids to leave."""
        told = []
        async with self._db.transaction() as connection:
            for experiment_id in [one for one in await looks.untold(connection) if one not in but]:
                before = await looks.state(connection, experiment_id, lock=True)
                experiment = await experiments.find(connection, experiment_id)
                if experiment is None or (before is not None and before.stage == experiment.stage.value):
                    continue
                told.append(news := await _stage(connection, experiment, before, at))
                await looks.told_stage(connection, experiment_id, experiment.stage.value, at)
                await self._post(connection, news)
        return told

    async def weighed(self, experiment: Experiment) -> int:
        """How many units had come when weights were drawn last; 0 if they never were."""
        async with self._db.transaction() as connection:
            found = await looks.state(connection, experiment.id)
        return found.weighed if found else 0

    async def weigh(self, experiment: Experiment, units: int) -> None:
        """Weights were drawn when so many units had come."""
        async with self._db.transaction() as connection:
            await looks.weigh(connection, experiment.id, units)

    async def _post(self, connection: Connection, news: News) -> None:
        if self._webhook:
            await outbox.put(connection, *message(news))


def due(before: looks.State | None, experiment: Experiment, verdict: Verdict, at: datetime) -> bool:
    """Whether this look belongs into the history."""
    if before is None or before.looked_at is None or before.word != verdict.word.value:
        return True
    return at - before.looked_at >= (at - experiment.started_at) / PER_AGE


async def _stage(connection: Connection, experiment: Experiment, before: looks.State | None, at: datetime) -> News:
    done = await looks.step_to(connection, experiment.tenant, experiment.id, experiment.stage.value)
    detail = done.detail if done else {}
    why = str(detail.get("why") or experiment.end_reason or "")
    was = before.stage if before else None
    actor = done.actor if done else None
    return News("stage", experiment, was, experiment.stage.value, why, actor, at, detail.get("figures") or {})
