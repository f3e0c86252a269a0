"""The pool and its one error."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from gateway.errors import Unavailable
from gateway.store.database import Database
from gateway.store.notices import SNAPSHOT, listen


async def test_a_transaction_that_raises_has_not_happened(db: Database) -> None:
    with pytest.raises(KeyError):
        async with db.transaction() as connection:
            await connection.execute("UPDATE control_state SET version = 77")
            raise KeyError
    async with db.transaction() as connection:
        assert await connection.fetchval("SELECT version FROM control_state") == 1


async def test_a_picture_shows_one_moment_and_cannot_be_written_to(db: Database) -> None:
    async with db.transaction(picture=True) as reading:
        before = await reading.fetchval("SELECT version FROM control_state")
        async with db.transaction() as writing:
            await writing.execute("UPDATE control_state SET version = version + 1")
        assert await reading.fetchval("SELECT version FROM control_state") == before
    with pytest.raises(Unavailable):
        async with db.transaction(picture=True) as reading:
            await reading.execute("UPDATE control_state SET version = 0")


async def test_a_cut_connection_is_unavailable_once_and_the_pool_recovers_by_itself(db: Database) -> None:
    with pytest.raises(Unavailable) as raised:
        async with db.transaction() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            async with db.transaction() as other:
                await other.execute("SELECT pg_terminate_backend($1)", pid)
            await asyncio.sleep(0.1)
            await connection.fetchval("SELECT 1")
    assert raised.value.status == 503
    assert dict(raised.value.headers())[b"retry-after"]
    async with db.transaction() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_database_that_is_not_there_is_unavailable_and_says_nothing_of_where(tmp_path: object) -> None:
    for url in (f"postgresql://postgres@/x?host={tmp_path}", "postgresql://postgres@127.0.0.1:1/x"):
        nowhere = await Database.connect(url)
        with pytest.raises(Unavailable) as raised:
            async with nowhere.transaction():
                pass
        assert raised.value.message == "The database cannot be reached. Try again shortly."
        await nowhere.close()


async def test_our_own_mistakes_are_not_called_an_outage(db: Database) -> None:
    for statement, arguments in (("SELECT $1::int", ["x"]), ("SELECT 1 FROM nothing", [])):
        with pytest.raises((asyncpg.PostgresError, ValueError)):
            async with db.transaction() as connection:
                await connection.fetchval(statement, *arguments)


async def test_a_listener_is_woken_once_for_many_notices_and_told_when_it_is_cut_off(db: Database) -> None:
    async with listen(db.url, SNAPSHOT) as listener:
        for number in range(3):
            async with db.transaction() as connection:
                await connection.execute("SELECT pg_notify($1, $2)", SNAPSHOT, str(number))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1):
            await listener.wait(60)
        started = asyncio.get_running_loop().time()
        await listener.wait(0.2)
        assert asyncio.get_running_loop().time() - started >= 0.19
        async with db.transaction() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(Unavailable):
            async with asyncio.timeout(1):
                await listener.wait(60)
