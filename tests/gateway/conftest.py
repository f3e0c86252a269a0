"""What the gateway's tests share: one PostgreSQL for a run, and a migrated, empty database for each test.

Ask for `database_url` (the URL) or `db` (a connected `Database`). Each process has a copy of one migrated template,
which is emptied after each test (`again.py`). The server does not wait for the disk: a test that kills PostgreSQL
starts one of its own.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from gateway.store import embedded
from gateway.store.database import Database
from gateway.store.migrate import migrate
from tests.gateway.again import Again, execute, named

MEMORY = Path("/dev/shm")
SETTINGS = {
    **dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes", "autovacuum"), "off"),
    "file_copy_method": "clone",  # less work than reading and writing, also where nothing can be cloned
    "max_connections": 500,  # of all processes of a run
}
_numbers = itertools.count(1)


def _prepared(directory: Path) -> embedded.Embedded:
    """The server on `directory`: made, with its template, or found running."""
    server = embedded.start(directory)
    done = directory.with_suffix(".done")
    if not done.exists():
        asyncio.run(execute(server.url, *(f"ALTER SYSTEM SET {name} = {value}" for name, value in SETTINGS.items())))
        server.stop()
        server = embedded.start(directory)
        asyncio.run(execute(server.url, "CREATE DATABASE template"))
        migrate(named(server.url, "template"))
        done.touch()
    return server


@contextmanager
def _door() -> Iterator[None]:
    """One process at a time comes or goes."""
    with open(Path(tempfile.gettempdir()) / f"tl-pg-{os.getuid()}.lock", "w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def postgres_url(testrun_uid: str) -> Iterator[str]:
    """A running PostgreSQL whose database `template` has the newest schema; the URL is of its empty `postgres`.

    All processes of a run share it, for it takes seconds to make: the first that comes starts it, the last that goes
    stops it. A lock says who is there, because it goes with its process, however that ends.
    """
    # In memory where there is room, because a database is hundreds of files: a third of the work to copy and remove.
    spacious = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 1 << 30
    room = (MEMORY if spacious else Path(tempfile.gettempdir())) / f"tl-pg-{testrun_uid[:12]}"
    with ExitStack() as here:
        with _door():
            room.mkdir(exist_ok=True)
            users = here.enter_context(open(room / "users", "w"))
            fcntl.flock(users, fcntl.LOCK_SH)
            server = _prepared(room / "d")
        yield server.url
        with _door(), users, suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            server.stop()
            shutil.rmtree(room, ignore_errors=True)


@pytest.fixture
async def empty_database_url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a database without a single table, the test's own."""
    name = f"empty_{os.getpid()}_{next(_numbers)}"
    await execute(postgres_url, f"CREATE DATABASE {name}")
    yield named(postgres_url, name)
    await execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Iterator[Again]:
    again = Again(postgres_url)
    yield again
    again.close()


@pytest.fixture
def database_url(databases: Again) -> Iterator[str]:
    """The URL of a migrated database that is as good as new, the test's own while it runs."""
    yield databases.lend()
    databases.take_back()


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A connected `Database` on a fresh schema."""
    database = await Database.connect(database_url)
    yield database
    await database.close()
