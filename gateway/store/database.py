"""The connection to PostgreSQL: a pool that reconnects by itself, and one error for everything that is its fault.

It knows no table. Whatever goes wrong between here and the database (refused, cut, shut down, overloaded, disk full, a
statement that ran too long) reaches the caller as `Unavailable` with Retry-After, and the transaction has not
happened, or, if the connection was cut while it was being committed, has happened entirely.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from gateway.errors import Unavailable

log = logging.getLogger("gateway.store")

Connection = Any
"""An `asyncpg` connection, which has no types."""

STATEMENT_SECONDS = 15
"""The server gives up on a statement after this long, and we on the server a little later."""

CONNECT_SECONDS = 5
MAX_CONNECTIONS = 8
"""Per worker. The data plane uses none; a recorder, a feed, a reporter and a few people at the control plane do."""

_AWAY = (
    OSError,  # refused, reset, no such socket, and TimeoutError
    asyncpg.InterfaceError,  # the connection was closed under us
    asyncpg.InvalidAuthorizationSpecificationError,  # class 28, as while a password is being rotated
    asyncpg.InvalidCatalogNameError,  # no such database (yet)
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InsufficientResourcesError,  # class 53: too many connections, disk full, out of memory
    asyncpg.OperatorInterventionError,  # class 57: shutting down, starting, cancelled by the statement timeout
    asyncpg.TransactionRollbackError,  # class 40: serialization failure, deadlock
    asyncpg.PostgresIOError,  # class 58
    asyncpg.ReadOnlySQLTransactionError,  # a standby after a failover
    asyncpg.InternalClientError,  # the protocol broke off half-way
)


class Database:
    """A pool of connections to one PostgreSQL database. Build it with `await Database.connect(url)`."""

    def __init__(self, pool: Any, url: str) -> None:
        self._pool = pool
        self.url = url

    @classmethod
    async def connect(cls, url: str) -> Database:
        """Make a pool for `url` (postgresql://…). It opens nothing: a worker can start while it is away."""
        pool = await asyncpg.create_pool(
            url,
            min_size=0,
            max_size=MAX_CONNECTIONS,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS + 5,
            reset=_leave_as_it_is,
            server_settings={
                "application_name": "tuneloop",
                "statement_timeout": str(STATEMENT_SECONDS * 1000),
                "idle_in_transaction_session_timeout": str(STATEMENT_SECONDS * 1000),
            },
        )
        return cls(pool, url)

    @asynccontextmanager
    async def transaction(self, *, picture: bool = False) -> AsyncIterator[Connection]:
        """One transaction: committed when the block ends, rolled back when it raises or is cancelled.

        `picture` makes it read-only and consistent: every statement in it sees the same moment. Raises `Unavailable`
        when PostgreSQL is away; errors that the caller's own SQL provokes (a unique violation, say) pass through.
        """
        options = {"isolation": "repeatable_read", "readonly": True} if picture else {}
        with unavailable_when_away():
            async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection, connection.transaction(**options):
                yield connection

    async def run(self, statement: str, *arguments: Any) -> None:
        """One statement, which is a transaction of its own: a single way there and back. Raises as `transaction`."""
        with unavailable_when_away():
            async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
                await connection.fetch(statement, *arguments)

    async def close(self) -> None:
        """Close every connection; those still in use after five seconds are cut."""
        try:
            async with asyncio.timeout(5):
                await self._pool.close()
        except (TimeoutError, *_AWAY):
            self._pool.terminate()


async def _leave_as_it_is(_connection: Connection) -> None:
    """Instead of resetting the session between two users: nobody here changes more of it than a transaction lasts, and
    what is open is rolled back all the same."""


@contextmanager
def unavailable_when_away() -> Iterator[None]:
    """Turn the block's connection trouble into `Unavailable`. The reason is logged, never told: it can name hosts."""
    try:
        yield
    except _AWAY as error:
        if isinstance(error, ValueError):  # asyncpg's word for an argument that does not fit its column: our mistake
            raise
        log.warning("the database is away: %s", type(error).__name__)
        raise Unavailable(
            "The database cannot be reached.", remedy="Try again shortly.", code="database_away"
        ) from error
