"""Whose turn it is to work units out: one at a time, and with time to think."""

from __future__ import annotations

import asyncio

import pytest

from gateway.feedback.tallies import Tallies
from gateway.store.database import Database
from gateway.store.tallies import Busy, enter
from tests.gateway.feedback.stories import EXPERIMENT


async def test_only_one_works_out_and_may_think_between_two_statements(db: Database) -> None:
    async with db.transaction() as first, db.transaction() as second:
        usual = await first.fetchval("SHOW idle_in_transaction_session_timeout")
        await enter(first, wait_seconds=5)
        # Thousands of corrections are compared in this process meanwhile.
        assert (usual, await first.fetchval("SHOW idle_in_transaction_session_timeout")) == ("15s", "2min")
        with pytest.raises(Busy):
            await enter(second, wait_seconds=0.01)
    async with db.transaction() as later:
        assert await later.fetchval("SHOW idle_in_transaction_session_timeout") == usual
        await enter(later, wait_seconds=5)


async def test_who_waits_for_the_turn_leaves_the_pool_to_others(db: Database) -> None:
    elsewhere = await Database.connect(db.url)
    try:
        async with elsewhere.transaction() as another_worker:
            await enter(another_worker, wait_seconds=5)
            async with asyncio.TaskGroup() as readers:
                asked = [readers.create_task(Tallies(db).catch_up_with(EXPERIMENT, seconds=1)) for _ in range(20)]
                await asyncio.sleep(0.2)
                async with asyncio.timeout(0.5), db.transaction() as connection:
                    assert await connection.fetchval("SELECT 1") == 1
            assert not any(task.result() for task in asked), "nobody was done in time"
    finally:
        await elsewhere.close()
    assert await Tallies(db).catch_up_with(EXPERIMENT)
