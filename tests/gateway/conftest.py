"""What the gateway's tests share: one PostgreSQL for the session, and a fresh, migrated database for each test.

Ask for `database_url` (the URL) or `db` (a connected `Database`). Each is a copy of one migrated template, so it costs
tens of milliseconds. The server does not wait for the disk: a test that kills PostgreSQL starts one of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from gateway.store import embedded
from gateway.store.database import Database
from gateway.store.migrate import migrate

_numbers = itertools.count(1)


def named(url: str, database: str) -> str:
    """`url` with another database's name."""
    return url.replace("/postgres?", f"/{database}?")


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A running PostgreSQL whose database `template` has the newest schema; the URL is of its empty `postgres`."""
    with tempfile.TemporaryDirectory(prefix="tl-pg-", ignore_cleanup_errors=True) as directory:
        server = embedded.start(Path(directory) / "d")
        try:
            fast = [f"ALTER SYSTEM SET {name} = off" for name in ("fsync", "synchronous_commit", "full_page_writes")]
            asyncio.run(_execute(server.url, *fast, "SELECT pg_reload_conf()", "CREATE DATABASE template"))
            migrate(named(server.url, "template"))
            yield server.url
        finally:
            server.stop()


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a database without a single table, the test's own."""
    name = f"empty_{next(_numbers)}"
    await _execute(postgres_url, f"CREATE DATABASE {name}")
    yield named(postgres_url, name)
    await _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database, the test's own."""
    name = f"test_{next(_numbers)}"
    # As files, not through the log: half the work where nobody waits for the disk.
    await _execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE template STRATEGY file_copy")
    yield named(postgres_url, name)
    await _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A connected `Database` on a fresh schema."""
    database = await Database.connect(database_url)
    yield database
    await database.close()
