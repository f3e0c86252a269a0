"""The feed: a worker's picture follows the control plane, through lost connections and a database that goes away."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.control.feed import Feed
from gateway.control.tenants import Tenants
from gateway.errors import Unavailable
from gateway.snapshot import Current
from gateway.store import embedded
from gateway.store.database import Database
from gateway.store.migrate import migrate
from gateway.store.snapshots import read_snapshot
from tests.gateway.control.rooms import ME


class Watched:
    """A cell that a feed keeps current, and a way to wait for what it shows."""

    def __init__(self) -> None:
        self.current = Current()
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1

    async def until(self, what: Callable[[Current], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not what(self.current):  # noqa: ASYNC110 — staleness has no event, it is a flag that requests read
                await asyncio.sleep(0.01)

    async def until_tenant(self, name: str) -> None:
        await self.until(lambda current: name in current.snapshot.tenants, seconds=3)


@asynccontextmanager
async def fed(db: Database) -> AsyncIterator[Watched]:
    watched = Watched()
    feed = Feed(db.url, db, watched.current, on_change=watched.changed)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(feed.run())
        yield watched
        task.cancel()


async def test_the_picture_follows_each_change_at_once(db: Database) -> None:
    async with fed(db) as watched:
        await watched.until(lambda current: not current.stale)
        for name in ("acme", "globex", "initech"):
            await Tenants(db).create(name, actor=ME)
            await watched.until_tenant(name)
        assert watched.changes >= 3
        assert watched.current.snapshot == await read_snapshot(db)


@pytest.mark.long
async def test_nothing_is_said_when_nothing_changed(db: Database) -> None:
    async with fed(db) as watched:
        await watched.until(lambda current: not current.stale)
        picture = watched.current.snapshot
        await asyncio.sleep(3.5)  # longer than the feed's poll
        assert watched.changes == 1
        assert watched.current.snapshot is picture


async def test_a_change_made_while_the_listener_is_cut_off_is_not_missed(db: Database) -> None:
    async with fed(db) as watched:
        await watched.until(lambda current: not current.stale)
        for round_ in range(5):
            async with db.transaction() as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name LIKE 'tuneloop tuneloop%'"
                )
            await Tenants(db).create(f"t{round_}", actor=ME)
            await watched.until_tenant(f"t{round_}")
        await watched.until(lambda current: not current.stale)


@pytest.fixture
def own_postgres() -> Iterator[Path]:
    """A directory for a PostgreSQL that the test may stop."""
    with tempfile.TemporaryDirectory(prefix="tl-pg-", ignore_cleanup_errors=True) as directory:
        yield Path(directory) / "d"
        embedded.start(Path(directory) / "d").stop()


@pytest.mark.long
async def test_while_postgresql_is_away_the_last_picture_stays_and_says_that_it_is_stale(own_postgres: Path) -> None:
    server = await asyncio.to_thread(embedded.start, own_postgres)
    await asyncio.to_thread(migrate, server.url)
    db = await Database.connect(server.url)
    async with fed(db) as watched:
        await Tenants(db).create("acme", actor=ME)
        await watched.until(lambda current: "acme" in current.snapshot.tenants)

        await asyncio.to_thread(server.stop)
        await watched.until(lambda current: current.stale)
        assert "acme" in watched.current.snapshot.tenants
        with pytest.raises(Unavailable) as raised:
            await Tenants(db).create("globex", actor=ME)
        assert raised.value.retry_after

        await asyncio.to_thread(embedded.start, own_postgres)
        await watched.until(lambda current: not current.stale)
        await Tenants(db).create("globex", actor=ME)
        await watched.until(lambda current: "globex" in current.snapshot.tenants)
    await db.close()


@pytest.mark.long
async def test_a_worker_may_start_before_its_database(own_postgres: Path) -> None:
    server = await asyncio.to_thread(embedded.start, own_postgres)
    await asyncio.to_thread(migrate, server.url)
    await asyncio.to_thread(server.stop)
    db = await Database.connect(server.url)
    async with fed(db) as watched:
        await asyncio.sleep(0.3)
        assert watched.current.stale
        assert watched.current.snapshot.version == 0
        await asyncio.to_thread(embedded.start, own_postgres)
        await watched.until(lambda current: current.snapshot.version > 0)
    await db.close()
