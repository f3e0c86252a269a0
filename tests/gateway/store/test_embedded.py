"""The embedded PostgreSQL: found again after a crash, not fooled by strangers, closed to others."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from gateway.store import embedded

pytestmark = pytest.mark.processes

OWNER = """
import pathlib, sys, time
from gateway.store import embedded
print(embedded.start(pathlib.Path(sys.argv[1])).url, flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where a test's own server lives; it is stopped afterwards."""
    with tempfile.TemporaryDirectory(prefix="tl-pg-", ignore_cleanup_errors=True) as home:
        yield Path(home) / "d"
        if (Path(home) / "d" / "PG_VERSION").exists():
            embedded.start(Path(home) / "d").stop()


def run(url: str, statement: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(ask())


def postmaster(directory: Path) -> int:
    return int((directory / "postmaster.pid").read_text().split("\n", 1)[0])


def test_the_next_start_finds_the_server_of_an_owner_that_was_killed(directory: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, str(directory)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        run(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        server = postmaster(directory)
        owner.send_signal(signal.SIGKILL)
    again = embedded.start(directory)
    assert (again.url, postmaster(directory)) == (url, server)
    assert run(again.url, "SELECT answer FROM kept") == 42
    again.stop()
    assert not (directory / "postmaster.pid").exists()
    with pytest.raises(OSError):
        run(url, "SELECT 1")
    again.stop()


def test_a_killed_server_recovers_what_was_committed(directory: Path) -> None:
    first = embedded.start(directory)
    run(first.url, "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(postmaster(directory), signal.SIGKILL)
    second = embedded.start(directory)
    assert run(second.url, "SELECT answer FROM kept") == 42


def test_neither_a_stranger_with_the_old_pid_nor_a_zombie_is_taken_for_the_server(directory: Path) -> None:
    embedded.start(directory).stop()
    # As after a restart of a container: the file is left over, and its pid belongs to somebody else now, or to nobody.
    with subprocess.Popen(["true"]) as dead:
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        for pid in (os.getpid(), dead.pid):
            lines = [str(pid), str(directory), "1700000000", "5432", str(directory), "", "  1 1", "ready   "]
            (directory / "postmaster.pid").write_text("\n".join(lines) + "\n")
            server = embedded.start(directory)
            assert postmaster(directory) != pid
            assert run(server.url, "SELECT 1") == 1
            server.stop()


def test_a_path_too_long_for_a_socket_works_and_is_closed_to_others(directory: Path) -> None:
    long = directory.parent / ("x" * 90) / "d"
    server = embedded.start(long)
    try:
        assert run(server.url, "SELECT 1") == 1
        sockets = Path(server.url.partition("?host=")[2])
        assert len(str(sockets / ".s.PGSQL.5432")) < 107
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    finally:
        server.stop()
