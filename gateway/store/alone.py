"""Being the only one of an installation that does something, by one of PostgreSQL's advisory locks.

The lock lives as long as its connection. Whoever dies lets go of it: at once if the process dies, after about
`SILENT_SECONDS` if the machine does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from gateway.store.database import CONNECT_SECONDS, Connection, Database, unavailable_when_away

EVALUATION = 0x7475_6E65_6C6F_6F70
"""The key of the evaluation's lock."""

_SILENCE = """
SELECT coalesce(extract(epoch FROM max(clock_timestamp() - a.state_change)), 0)::float8
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) + l.objid::bigint = $1
"""
SILENT_SECONDS = 15
_KEEPALIVE = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "2"}


class Alone:
    """Says whether one still is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def confirm(self) -> None:
        """Return if so. Raises `Unavailable` when the connection, and with it the lock, is lost."""
        with unavailable_when_away():
            await self._connection.execute("SELECT 1", timeout=CONNECT_SECONDS)


@asynccontextmanager
async def alone(url: str, key: int) -> AsyncIterator[Alone | None]:
    """Hold the lock while the block runs; None if somebody else does. Raises `Unavailable`."""
    with unavailable_when_away():
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings={"application_name": "tuneloop alone", **_KEEPALIVE}
        )
    try:
        with unavailable_when_away():
            got = await connection.fetchval("SELECT pg_try_advisory_lock($1)", key, timeout=CONNECT_SECONDS)
        yield Alone(connection) if got else None
    finally:
        connection.terminate()  # as in `notices.listen`: the server may be gone


async def silence(db: Database, key: int) -> float:
    """Seconds since the lock's holder, whoever it is, took or confirmed it; 0 where nobody holds it. Raises
    `Unavailable`.
    """
    async with db.transaction(picture=True) as connection:
        return float(await connection.fetchval(_SILENCE, key))
