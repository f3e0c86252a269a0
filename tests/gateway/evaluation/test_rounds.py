"""The rounds on a real database with scripted verdicts: who goes round, what is done, and what stops nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from adapters.store import AdapterStore
from gateway.domain import Variant
from gateway.errors import Unavailable
from gateway.evaluation.judging import Judged, Judging
from gateway.evaluation.keeping import Keeping
from gateway.evaluation.news import News
from gateway.evaluation.rounds import Rounds
from gateway.experiment import Evidence, Experiment, Plan, Stage
from gateway.feedback.tallies import Tallies
from gateway.findings import Verdict
from gateway.store import looks
from gateway.store.database import Database
from tests.gateway.control.rooms import ME, Rooms, Worker, only
from tests.gateway.evaluation.verdicts import verdict

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

    async def started(self, name: str, word: Verdict | Exception, **plan: Any) -> Experiment:
        """An experiment on an alias of its own, of the base model against the first version."""
        self.script[name] = word
        await self.rooms.aliases.set("acme", name, only(None, "base"), actor=ME)
        arms = [Variant("base", 1, None), Variant("tuned", 1, self.refs[0])]
        return await self.rooms.experiments.start("acme", name, name=name, variants=arms, plan=Plan(**plan), actor=ME)

    def rounds(self, judging: Judging | None = None) -> Rounds:
        db = self.rooms.db
        keeping = Keeping(db, webhook=False)
        judging = judging or Scripted(db, self.script)
        return Rounds(db, judging, keeping, self.rooms.experiments, seconds=PERIOD, tell=self.news.append)

    async def stage(self, experiment: Experiment) -> Stage:
        return (await self.rooms.experiments.get(experiment.id)).stage


@pytest.fixture
async def room(db: Database, tmp_path: Path) -> AsyncIterator[Room]:
    rooms = Rooms(db, AdapterStore(str(tmp_path / "store"), cache=tmp_path / "cache"), tmp_path)
    refs = await rooms.ready(1, 2)
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
