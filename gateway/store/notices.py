"""LISTEN: being woken by another process's commit. It knows no table, and a notice says no more than "look again".

PostgreSQL forgets notices for a listener that is away, so whoever listens reads the state once after connecting, and
again at each wake-up or timeout: notices make that soon, they do not make it correct.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from gateway.errors import Unavailable
from gateway.store.database import CONNECT_SECONDS, Connection, unavailable_when_away

SNAPSHOT = "tuneloop_snapshot"
"""The control plane committed a change; the payload is the new version."""

WORKERS = "tuneloop_workers"
"""A worker reported; the payload is its name."""


class Listener:
    """One listening connection. Get it from `listen`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._woken = asyncio.Event()
        connection.add_termination_listener(self._wake)

    def _wake(self, *_: Any) -> None:
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Return at the next notice (or at once, if some came since the last call), or after `seconds`.

        Raises `Unavailable` when the connection is lost; after a silent wait it asks the server, so a connection that
        died without a word is found out too.
        """
        with unavailable_when_away():
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                await self._connection.execute("SELECT 1", timeout=CONNECT_SECONDS)
        self._woken.clear()
        if self._connection.is_closed():
            raise Unavailable("The database cannot be reached.", code="database_away")


@asynccontextmanager
async def listen(url: str, channel: str) -> AsyncIterator[Listener]:
    """Listen on `channel` of the database at `url` while the block runs, on a connection of its own."""
    with unavailable_when_away():
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings={"application_name": f"tuneloop {channel}"}
        )
    try:
        listener = Listener(connection)
        with unavailable_when_away():
            await connection.add_listener(channel, listener._wake)
        yield listener
    finally:
        # Nothing to say goodbye for: closing politely would wait for a server that may be gone.
        connection.terminate()
