"""One of an installation at a time: whoever holds the lock keeps it until he lets go, dies or loses his connection."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from gateway.errors import Unavailable
from gateway.store.alone import alone, silence
from gateway.store.database import Database

KEY = 4711


async def test_the_second_one_is_told_that_he_is_not_alone(database_url: str) -> None:
    async with alone(database_url, KEY) as first, alone(database_url, KEY) as second, alone(database_url, 1) as other:
        assert first is not None and second is None and other is not None
        await first.confirm()


async def test_anybody_can_see_how_long_its_holder_has_been_silent(db: Database) -> None:
    assert await silence(db, KEY) == 0
    async with alone(db.url, KEY) as held, alone(db.url, 1):
        assert held is not None
        await asyncio.sleep(0.3)
        before = await silence(db, KEY)
        await held.confirm()
        assert await silence(db, KEY) < before and before >= 0.3


async def test_the_lock_is_free_once_its_holder_is_gone(database_url: str) -> None:
    async with alone(database_url, KEY) as first:
        assert first is not None
    async with asyncio.timeout(5):
        while True:  # the server needs a moment to see that a connection was cut
            async with alone(database_url, KEY) as second:
                if second is not None:
                    return


async def test_a_holder_whose_connection_is_cut_finds_out(database_url: str) -> None:
    async with alone(database_url, KEY) as held:
        assert held is not None
        other = await asyncpg.connect(database_url)
        cut = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database ="
        await other.execute(f"{cut} (SELECT oid FROM pg_database WHERE datname = current_database())")
        await other.close()
        with pytest.raises(Unavailable):
            await held.confirm()
