"""The recorder: never in anybody's way, and nothing lost that could be written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.domain import Inference
from gateway.errors import Unavailable
from gateway.feedback.recorder import BATCH, Recorder
from gateway.store.inferences import as_row


def inference(number: int) -> Inference:
    return Inference(
        id=f"{number:044x}",
        tenant="acme",
        key_id="k",
        created_at=datetime.now(UTC),
        endpoint="/v1/chat/completions",
        alias="support",
        alias_revision=1,
        experiment=None,
        variant="base",
        assigned="base",
        served="base",
        served_digest=None,
        reason="static",
        propensity=1.0,
        unit="u",
        episode=None,
        stream=False,
        params={},
        status=200,
        outcome="ok",
    )


def nested(depth: int) -> list[Any]:
    lists: list[Any] = []
    for _ in range(depth):
        lists = [lists]
    return lists


@dataclass
class Table:
    """A database in memory that can be away and that refuses poison."""

    rows: dict[str, Inference] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    away: bool = False
    poison: frozenset[str] = frozenset()

    async def write(self, rows: Sequence[bytes]) -> None:
        await asyncio.sleep(0)
        batch = [msgspec.json.decode(row, type=Inference) for row in rows]
        if self.away:
            raise Unavailable("The database is away.")
        if any(one.id in self.poison for one in batch):
            raise ValueError("a row that no database takes: " + batch[0].id)
        self.batches.append(len(batch))
        self.rows.update({one.id: one for one in batch})


@asynccontextmanager
async def recording(table: Table, **more: int) -> AsyncIterator[Recorder]:
    recorder = Recorder(table.write, as_row, **more)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(recorder.run())
        yield recorder
        running.cancel()


async def test_everything_recorded_is_written_in_few_batches() -> None:
    table = Table()
    async with recording(table) as recorder:
        for number in range(2500):
            recorder.record(inference(number))
        await recorder.drain(5)
        assert recorder.pending == 0 and recorder.written == len(table.rows) == 2500
    assert table.batches == [BATCH] * 5


async def test_while_the_database_is_away_rows_wait_and_what_does_not_fit_is_counted() -> None:
    table = Table(away=True)
    async with recording(table, capacity=100) as recorder:
        for number in range(150):
            recorder.record(inference(number))
            await asyncio.sleep(0)
        assert (recorder.pending, recorder.dropped, recorder.written) == (100, 50, 0)
        table.away = False
        await recorder.drain(5)
    # Those that came first are kept: feedback on them is likelier to be under way.
    assert sorted(table.rows) == [f"{number:044x}" for number in range(100)]


async def test_a_row_that_the_database_refuses_does_not_stop_the_others() -> None:
    table = Table(poison=frozenset((f"{3:044x}", f"{7:044x}")))
    async with recording(table) as recorder:
        for number in range(10):
            recorder.record(inference(number))
        await recorder.drain(5)
        assert (recorder.written, recorder.dropped, recorder.rejected) == (8, 2, 2)
    assert len(table.rows) == 8


async def test_a_database_that_goes_away_between_the_rows_loses_none() -> None:
    class Flaky(Table):
        async def write(self, rows: Sequence[bytes]) -> None:
            fifth = f"{5:044x}"
            self.away = len(rows) == 1 and fifth.encode() in rows[0] and fifth not in self.rows and not self.tried
            self.tried = self.tried or self.away
            await super().write(rows)

        tried = False

    table = Flaky(poison=frozenset((f"{3:044x}",)))
    async with recording(table) as recorder:
        for number in range(10):
            recorder.record(inference(number))
        await recorder.drain(5)
    assert table.tried and len(table.rows) == 9 and recorder.pending == 0


async def test_what_cannot_even_be_made_a_row_is_counted_and_hurts_nobody() -> None:
    table = Table()
    async with recording(table) as recorder:
        recorder.record(inference(1))
        recorder.record(msgspec.structs.replace(inference(2), params={"deep": nested(100_000)}))
        recorder.record(inference(3))
        await recorder.drain(5)
        assert (recorder.written, recorder.dropped, recorder.rejected) == (2, 1, 1)


async def test_draining_ends_by_its_deadline_with_the_database_away() -> None:
    table = Table(away=True)
    async with recording(table) as recorder:
        recorder.record(inference(1))
        began = asyncio.get_running_loop().time()
        await recorder.drain(0.3)
        assert asyncio.get_running_loop().time() - began < 2
        assert recorder.pending == 1


async def test_recording_takes_no_turn_of_the_loop() -> None:
    recorder = Recorder(Table().write, as_row, capacity=3)
    for number in range(5):
        recorder.record(inference(number))  # not even a running loop is needed: it cannot wait
    assert (recorder.pending, recorder.dropped) == (3, 2)
