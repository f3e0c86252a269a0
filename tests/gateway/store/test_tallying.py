"""Whose turn it is to work units out: one at a time, and with time to think."""

from __future__ import annotations

import pytest

from gateway.store.database import Database
from gateway.store.tallies import Busy, enter


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
