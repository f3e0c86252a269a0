"""What was found is kept, and with it that it must be told: once, and after a crash too."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.control.tenants import Tenants
from gateway.evaluation.keeping import Keeping
from gateway.experiment import Experiment, Stage
from gateway.findings import Block, Word
from gateway.store import experiments, looks, outbox
from gateway.store.changes import change
from gateway.store.database import Database
from tests.gateway.evaluation.verdicts import BEGAN, experiment, verdict


@pytest.fixture
async def running(db: Database) -> Experiment:
    await Tenants(db).create("acme", actor="test")
    one = experiment(Stage.CANARY)
    await put(db, one)
    return one


async def put(db: Database, one: Experiment, action: str = "experiment.start", **detail: Any) -> None:
    async with change(db, action, one.id, tenant=one.tenant, actor="operator") as new:
        new.detail.update(detail, stage=one.stage.value)
        await experiments.put(new.connection, one)


async def sent(db: Database) -> list[dict[str, Any]]:
    """All that is in the outbox, taken out of it."""
    found = []
    while (message := await outbox.claim(db, 60)) is not None:
        found.append(json.loads(message.body))
        await outbox.remove(db, message.id)
    return found


async def test_a_new_word_is_told_once_and_the_same_word_not_again(db: Database, running: Experiment) -> None:
    keeping = Keeping(db, webhook=True)
    first = await keeping.verdict(running, verdict(), BEGAN + timedelta(hours=1))
    again = await keeping.verdict(running, verdict(), BEGAN + timedelta(hours=2))
    other = await keeping.verdict(running, verdict(Word.SHIP), BEGAN + timedelta(hours=3))
    assert [len(news) for news in (first, again, other)] == [1, 0, 1]
    assert (other[0].before, other[0].after) == ("keep_running", "ship")
    bodies = await sent(db)
    assert [body["type"] for body in bodies] == ["experiment.verdict"] * 2
    assert bodies[1]["data"]["to"] == "ship" and bodies[1]["data"]["figures"]["figures"][0]["low"] == -0.1
    newest = await looks.newest(db, running.id)
    assert newest is not None and newest.word == "ship" and newest.verdict["alpha"] == 0.05


async def test_that_an_experiment_begins_with_too_few_units_is_no_news(db: Database, running: Experiment) -> None:
    keeping = Keeping(db, webhook=True)
    few = replace(verdict(Word.BLOCKED), blocks=(Block.TOO_FEW_UNITS,))
    assert await keeping.verdict(running, few, BEGAN) == []
    assert [news.before for news in await keeping.verdict(running, verdict(), BEGAN)] == ["blocked"]


async def test_a_stage_is_told_with_who_and_why_whoever_changed_it(db: Database, running: Experiment) -> None:
    keeping = Keeping(db, webhook=True)
    now = datetime.now(UTC)
    assert [(n.before, n.after) for n in await keeping.stages(now)] == [(None, "canary")]
    assert await keeping.stages(now) == []
    ended = replace(running, stage=Stage.ROLLED_BACK, ended_at=now, end_reason="too slow")
    await put(db, ended, "experiment.rollback", why="the guardrail latency", figures={"word": "roll_back"})
    await keeping.verdict(running, verdict(Word.ROLL_BACK), now)
    (news,) = await keeping.stages(now)
    assert (news.before, news.after, news.actor, news.why) == (
        "canary",
        "rolled_back",
        "operator",
        "the guardrail latency",
    )
    assert [body["type"] for body in await sent(db)] == ["experiment.stage", "experiment.verdict", "experiment.stage"]


async def test_without_a_webhook_nothing_waits_to_be_sent(db: Database, running: Experiment) -> None:
    keeping = Keeping(db, webhook=False)
    assert await keeping.stages(BEGAN) and await keeping.verdict(running, verdict(), BEGAN)
    assert await outbox.waiting(db) == 0


@pytest.mark.long
async def test_looks_grow_with_the_logarithm_of_the_age_and_every_change_of_mind_is_among_them(
    db: Database, running: Experiment
) -> None:
    keeping = Keeping(db, webhook=False)
    at, kept = BEGAN, 0
    for minute in range(600):
        at = BEGAN + timedelta(minutes=1 + minute)
        await keeping.verdict(running, verdict(), at)
    kept = len(await looks.history(db, running.id, 10_000))
    assert 200 < kept < 200 * (1 + 1.2)  # 200 in the first 200 minutes, then 200 · ln 3
    await keeping.verdict(running, verdict(Word.BLOCKED), at + timedelta(seconds=1))
    seen = await looks.history(db, running.id, 3)
    assert [look.word for look in seen] == ["keep_running", "keep_running", "blocked"]
    assert [look.at for look in seen] == sorted(look.at for look in seen)
    assert seen[-1].verdict["units"] == {"base": 200, "tuned": 200}
