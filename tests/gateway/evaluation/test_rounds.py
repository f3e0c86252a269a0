"""The rounds on a real database with scripted verdicts: who goes round, what is done, and what stops nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from adapters.store import AdapterStore
from gateway.control.experiments import Experiments
from gateway.domain import Metric, MetricKind, Variant, WorkerReport
from gateway.errors import Unavailable
from gateway.evaluation.judging import Judged, Judging
from gateway.evaluation.keeping import Keeping
from gateway.evaluation.news import News
from gateway.evaluation.rounds import Rounds
from gateway.experiment import Allocation, By, Evidence, Experiment, Plan, Stage
from gateway.feedback.tallies import Tallies
from gateway.findings import Verdict, Word
from gateway.store import audit, looks, workers
from gateway.store.alone import EVALUATION, alone
from gateway.store.database import Database
from gateway.store.inferences import write_inferences
from gateway.telemetry import Telemetry
from tests.gateway.control.rooms import ME, Rooms, Worker, only
from tests.gateway.evaluation.test_weights import judged as answers_of
from tests.gateway.evaluation.verdicts import verdict
from tests.gateway.serving.house import Signals
from tests.gateway.store.test_inferences import inference

PERIOD = 0.1


class Scripted(Judging):
    """Says of each experiment what the script says, by its name; an exception in it is raised."""

    def __init__(self, db: Database, script: dict[str, Verdict | Exception]) -> None:
        super().__init__(db, Tallies(db))
        self.script = script
        self.asked: list[str] = []

    async def judged(self, experiment: Experiment) -> Judged:
        self.asked.append(experiment.name)
        said = self.script[experiment.name]
        if isinstance(said, Exception):
            raise said
        return Judged(said, Evidence(), {})


@dataclass
class Room:
    rooms: Rooms
    refs: list[Any]
    script: dict[str, Verdict | Exception] = field(default_factory=dict)
    news: list[News] = field(default_factory=list)

    async def started(
        self, name: str, word: Verdict | Exception, *, stage: Stage = Stage.EXPERIMENT, **plan: Any
    ) -> Experiment:
        """An experiment on an alias of its own, of the base model against the first version."""
        self.script[name] = word
        await self.rooms.aliases.set("acme", name, only(None, "base"), actor=ME)
        arms = [Variant("base", 1, None), Variant("tuned", 1, self.refs[0])]
        return await self.rooms.experiments.start(
            "acme", name, name=name, variants=arms, plan=Plan(primary="helpful", **plan), stage=stage, actor=ME
        )

    def rounds(self, judging: Judging | None = None, **more: Any) -> Rounds:
        db, tell, keeping = self.rooms.db, self.news.append, Keeping(self.rooms.db, webhook=False)
        judging = judging or Scripted(db, self.script)
        return Rounds(db, judging, keeping, self.rooms.experiments, seconds=PERIOD, tell=tell, **more)

    async def stage(self, experiment: Experiment) -> Stage:
        return (await self.rooms.experiments.get(experiment.id)).stage


@pytest.fixture
async def room(db: Database, tmp_path: Path) -> AsyncIterator[Room]:
    store = AdapterStore(str(tmp_path / "store"), cache=tmp_path / "cache")
    rooms = Rooms(db, store, tmp_path, acknowledge_seconds=0.5)
    refs = await rooms.ready(1)
    await rooms.metrics.declare(Metric("acme", "helpful", MetricKind.BOOLEAN), actor=ME)
    async with Worker("w", db).running():
        yield Room(rooms, refs)


async def once(rounds: Rounds) -> None:
    """One round, and the steps that it begins to their end."""
    async with asyncio.TaskGroup() as steps:
        await rounds.once(steps)


@asynccontextmanager
async def going(*rounds: Rounds) -> AsyncIterator[list[asyncio.Task[None]]]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run()) for one in rounds]
        yield tasks
        for task in tasks:
            task.cancel()


async def until(look: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not look():  # noqa: ASYNC110 - what is waited for are rows and lists, which tell nobody
            await asyncio.sleep(0.02)


@pytest.mark.long
async def test_of_two_workers_one_goes_round_and_the_other_takes_over_when_it_is_gone(room: Room) -> None:
    await room.started("one", verdict())
    first, second = (Scripted(room.rooms.db, room.script) for _ in range(2))
    async with going(room.rounds(first), room.rounds(second)) as (task, _):
        await until(lambda: len(first.asked) + len(second.asked) > 5)
        busy, idle = (first, second) if first.asked else (second, first)
        assert not idle.asked
        if busy is first:
            task.cancel()
            await until(lambda: idle.asked)
            seen = len(busy.asked)
            await until(lambda: len(idle.asked) > 3)
            assert len(busy.asked) == seen


async def test_an_experiment_that_cannot_be_judged_stops_nobody_elses_round(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    await room.started("broken", ZeroDivisionError("bad data"))
    await room.started("away", Unavailable("The database cannot be reached."))
    fine = await room.started("fine", verdict())
    with caplog.at_level(logging.WARNING, "gateway.evaluation"):
        await once(room.rounds())
    assert (await looks.newest(room.rooms.db, fine.id)) is not None
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.message == "not evaluated"]
    assert told == [("ERROR", "not evaluated"), ("WARNING", "not evaluated")]


async def test_an_unreadable_row_stops_nobody_elses_round(room: Room) -> None:
    odd = await room.started("odd", verdict())
    fine = await room.started("fine", verdict())
    async with room.rooms.db.transaction() as connection:
        await connection.execute("""UPDATE experiments SET plan = '{"no such field": 1}' WHERE id = $1""", odd.id)
    await once(room.rounds())
    assert (await looks.newest(room.rooms.db, fine.id)) is not None


async def entry(room: Room, experiment: Experiment, action: str) -> audit.Entry:
    """The one audit row of this action on this experiment."""
    rows = await audit.entries(room.rooms.db, "acme", 1000)
    (found,) = [row for row in rows if (row.subject, row.action) == (experiment.id, action)]
    return found


async def test_a_breach_is_rolled_back_in_the_round_that_finds_it_audited_and_told(room: Room) -> None:
    worse = await room.started("worse", verdict(Word.ROLL_BACK, guardrail="latency"))
    await once(room.rounds())
    assert await room.stage(worse) is Stage.ROLLED_BACK
    alias = await room.rooms.aliases.get("acme", "worse")
    assert [variant.ref for variant in alias.variants] == [None] and alias.experiment is None
    row = await entry(room, worse, "experiment.rollback")
    assert row.actor == "rule" and row.detail["why"] == "The word is roll_back."
    assert row.detail["figures"]["guardrail"] == "latency" and row.detail["figures"]["figures"][0]["low"] == -0.1
    told = [(news.kind, news.before, news.after, news.actor) for news in room.news]
    assert told == [
        ("stage", None, "experiment", ME),
        ("verdict", None, "roll_back", None),
        ("stage", "experiment", "rolled_back", "rule"),
    ]
    await once(room.rounds())
    assert len(room.news) == 3


async def test_a_better_candidate_is_promoted_where_the_plan_leaves_it_to_the_rule(room: Room) -> None:
    by_rule = await room.started("rule", verdict(Word.SHIP), ship=By.RULE)
    by_hand = await room.started("hand", verdict(Word.SHIP))
    await once(room.rounds())
    assert await room.stage(by_rule) is Stage.PROMOTED and await room.stage(by_hand) is Stage.EXPERIMENT
    assert [v.ref for v in (await room.rooms.aliases.get("acme", "rule")).variants] == [room.refs[0]]
    assert (await entry(room, by_rule, "experiment.promote")).actor == "rule"


async def test_a_canary_goes_all_the_way_by_rule(room: Room) -> None:
    one = await room.started("one", verdict(), stage=Stage.CANARY, widen=By.RULE, ship=By.RULE)
    rounds = room.rounds()
    await once(rounds)
    assert await room.stage(one) is Stage.EXPERIMENT
    room.script["one"] = verdict(Word.SHIP)
    await once(rounds)
    assert await room.stage(one) is Stage.PROMOTED
    assert [news.after for news in room.news if news.kind == "stage"] == ["canary", "experiment", "promoted"]


class Tripping(Experiments):
    """Fails to roll back as often as it is told to."""

    trips = 1

    async def roll_back(self, experiment_id: str, **told: Any) -> Experiment:
        if self.trips:
            self.trips -= 1
            raise Unavailable("Worker w still uses an older picture.")
        return await super().roll_back(experiment_id, **told)


async def test_a_step_that_fails_is_taken_in_the_next_round(room: Room) -> None:
    room.rooms.experiments = Tripping(room.rooms.db, room.rooms.swaps)
    one = await room.started("one", verdict(Word.ROLL_BACK))
    rounds = room.rounds()
    await once(rounds)
    assert await room.stage(one) is Stage.EXPERIMENT
    await once(rounds)
    assert await room.stage(one) is Stage.ROLLED_BACK


async def test_a_shadow_of_before_leads_no_experiment_on(room: Room) -> None:
    stale = await room.started("stale", verdict(), stage=Stage.SHADOW, widen=By.RULE, canary_units=1)
    fresh = await room.started("fresh", verdict(), stage=Stage.SHADOW, widen=By.RULE, canary_units=1)
    for one, at in ((stale, stale.started_at - timedelta(hours=1)), (fresh, fresh.started_at)):
        mirrored = {"alias": one.alias, "assigned": str(room.refs[0]), "shadow_of": "0" * 44, "experiment": None}
        await write_inferences(room.rooms.db, [inference(created_at=at, **mirrored)])
    await once(room.rounds())
    assert await room.stage(stale) is Stage.SHADOW and await room.stage(fresh) is Stage.CANARY


@pytest.mark.long
async def test_a_worker_that_never_confirms_a_step_holds_up_no_round(room: Room) -> None:
    stuck = await room.started("stuck", verdict(Word.ROLL_BACK))
    fine = await room.started("fine", verdict())
    await workers.report(room.rooms.db, WorkerReport("mute", 0, True, "boot"), ttl=60)
    rounds = room.rounds()
    async with asyncio.TaskGroup() as steps:
        await rounds.once(steps)
        first = await looks.newest(room.rooms.db, fine.id)
        await rounds.once(steps)
        second = await looks.newest(room.rooms.db, fine.id)
    assert first is not None and second is not None and first.at < second.at
    assert await room.stage(stuck) is Stage.ROLLED_BACK
    assert [news.actor for news in room.news if news.after == "rolled_back"] == ["rule"]


async def test_who_pauses_is_left_alone(room: Room) -> None:
    one = await room.started("one", verdict(Word.ROLL_BACK))
    await room.rooms.experiments.pause(one.id, actor=ME)
    await once(room.rounds())
    assert await room.stage(one) is Stage.EXPERIMENT
    await room.rooms.experiments.resume(one.id, actor=ME)
    await once(room.rounds())
    assert await room.stage(one) is Stage.ROLLED_BACK


@pytest.mark.long
async def test_a_round_goes_on_after_its_lock_was_lost(room: Room) -> None:
    await room.started("one", verdict())
    judging = Scripted(room.rooms.db, room.script)
    async with going(room.rounds(judging)):
        await until(lambda: judging.asked)
        async with room.rooms.db.transaction() as connection:
            cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database ="
            await connection.execute(f"{cut} (SELECT oid FROM pg_database WHERE datname = current_database())")
        seen = len(judging.asked)
        await until(lambda: len(judging.asked) > seen + 3)


@pytest.mark.long
async def test_that_whoever_goes_round_hangs_is_shown_by_those_who_wait(room: Room) -> None:
    db, telemetry = room.rooms.db, Telemetry(Signals())

    def lag() -> float:
        return float(telemetry.metrics_text().rpartition(b"tuneloop_evaluation_lag ")[2].split()[0])

    async with alone(db.url, EVALUATION) as hanging, going(room.rounds(gauges=telemetry)):
        assert hanging is not None
        await until(lambda: lag() > 5 * PERIOD)
        await hanging.confirm()
        await until(lambda: lag() < 5 * PERIOD)


class Leaning(Judging):
    """A thousand users an arm, of whom more like the candidate."""

    async def judged(self, experiment: Experiment) -> Judged:
        return answers_of(300, 420)


async def test_an_adaptive_experiment_gets_new_weights_once_a_batch_with_the_seed_in_the_audit_row(room: Room) -> None:
    one = await room.started("one", verdict(), allocation=Allocation.THOMPSON)
    rounds = room.rounds(Leaning(room.rooms.db, Tallies(room.rooms.db)))
    await once(rounds)
    row = await entry(room, one, "experiment.weights")
    assert row.actor == "rule" and row.detail["figures"]["seed"] and row.detail["figures"]["units"] == 2000
    weights = [arm.weight for arm in (await room.rooms.experiments.get(one.id)).variants]
    assert weights == row.detail["weights"] and weights[1] > 0.9
    await once(rounds)
    assert await entry(room, one, "experiment.weights") == row
