"""What was acknowledged survives `kill -9`; while PostgreSQL is away nothing is. On a PostgreSQL of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
import pytest

from gateway.store import embedded
from gateway.store.database import Database
from gateway.store.migrate import migrate
from tests.gateway.api.installation import Installation, installed

FEEDBACK = {"episode_id": "talk", "metric": "thumbs", "value": True, "comment": "fine"}


@dataclass(slots=True)
class Killable:
    """A PostgreSQL whose default is not to wait for the disk."""

    directory: Path
    url: str = ""

    def start(self) -> None:
        self.url = embedded.start(self.directory).url

    def kill(self) -> None:
        """SIGKILL to the postmaster and everything under it, walwriter included, at once."""
        postmaster = psutil.Process(int((self.directory / "postmaster.pid").read_text().split()[0]))
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            os.kill(process.pid, signal.SIGSTOP)
        for process in family:
            os.kill(process.pid, signal.SIGKILL)
        psutil.wait_procs(family, timeout=10)

    def stop(self) -> None:
        embedded.start(self.directory).stop()


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[Killable]:
    server = Killable(tmp_path / "pg")
    await asyncio.to_thread(server.start)
    try:
        await asyncio.to_thread(migrate, server.url)
        connection = await asyncpg.connect(server.url)
        # The longest the walwriter may leave commits in memory: what survives did not count on it.
        for setting in ("synchronous_commit = off", "wal_writer_delay = '10s'", "wal_writer_flush_after = '100MB'"):
            await connection.execute(f"ALTER SYSTEM SET {setting}")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()
        yield server
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.long
async def test_acknowledged_feedback_survives_a_kill_of_the_database(postgres: Killable, tmp_path: Path):
    db = await Database.connect(postgres.url)
    async with installed(db, tmp_path) as here:
        key = await here.tenant("acme")
        replies = [await here.request("POST", "/v1/feedback", FEEDBACK, key=key) for _ in range(5)]
        await asyncio.to_thread(postgres.kill)
        assert [reply.status_code for reply in replies] == [200] * 5
        await _nothing_is_acknowledged(here, key)
        await asyncio.to_thread(postgres.start)
        again = await here.request("POST", "/v1/feedback", FEEDBACK, key=key)
        assert again.status_code == 200, "it comes back by itself"
    async with db.transaction() as connection:
        kept = {row["id"] for row in await connection.fetch("SELECT id FROM feedback")}
    await db.close()
    assert kept == {reply.json()["id"] for reply in [*replies, again]}


async def _nothing_is_acknowledged(here: Installation, key: str) -> None:
    """503 with Retry-After for everything that needs the database; readiness and known keys do not."""
    for method, path, body in (
        ("POST", "/v1/feedback", FEEDBACK),
        ("GET", "/admin/v1/tenants", None),
        ("GET", "/admin/v1/export?tenant=acme", None),
        ("GET", "/admin/v1/tenants/acme/aliases/support", None),
    ):
        reply = await here.request(method, path, body, key=key)
        assert reply.status_code == 503, reply.text
        assert reply.json()["error"]["code"] == "database_away" and int(reply.headers["retry-after"]) <= 60
    assert (await here.request("GET", "/healthz", key=None)).status_code == 200
