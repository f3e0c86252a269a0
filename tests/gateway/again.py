"""A migrated database that the tests of one process use one after the other, emptied in between.

To copy the template and to remove the copy takes tens of milliseconds, to delete what one test wrote takes two. It is
emptied by what is in it, not by what is known of the schema, and made anew where emptying would not do: a test changed
the schema, gathered statistics for the planner, wrote a lot, or cut every connection, ours too.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any

import asyncpg

ROOM = 4 << 20
"""A database that has grown by more bytes is made anew: what was deleted lies in it still."""

_CATALOGS = ("class", "attribute", "attrdef", "constraint", "index", "proc", "statistic", "trigger", "type")
_SCHEMA = " UNION ALL ".join(f"SELECT count(*), max(xmin::text::bigint) FROM pg_{name}" for name in _CATALOGS)
_SETTINGS = "SELECT count(*), 0 FROM pg_db_role_setting"
_GUESSES = "SELECT sum(relpages), sum(reltuples)::bigint FROM pg_class"
_SEQUENCES = "SELECT sequencename, start_value FROM pg_sequences WHERE schemaname = 'public'"
_CUT = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_numbers = itertools.count(1)


def named(url: str, database: str) -> str:
    """`url` with another database's name."""
    return url.replace("/postgres?", f"/{database}?")


async def execute(url: str, *statements: str) -> None:
    """The statements one by one, on a connection of their own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


class Copy:
    """A copy of the template, and the connection that empties it."""

    def __init__(self, name: str, inside: Any) -> None:
        self.name, self._inside = name, inside

    @classmethod
    async def make(cls, server: str) -> Copy:
        copy = cls(f"test_{os.getpid()}_{next(_numbers)}", None)
        # As files, not through the log: half the work where nobody waits for the disk.
        await execute(server, f"CREATE DATABASE {copy.name} TEMPLATE template STRATEGY file_copy")
        # A replica checks no foreign key: tables are emptied in any order.
        settings = {"session_replication_role": "replica"}
        copy._inside = await asyncpg.connect(named(server, copy.name), server_settings=settings)
        await copy._learn()
        return copy

    async def _learn(self) -> None:
        """What it is like before anybody has used it."""
        fetch = self._inside.fetch
        tables = [row[0] for row in await fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        self._filled = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in tables)
        self._seeded = [row[0] for row in await fetch(self._filled)]
        for name in self._seeded:
            await self._inside.execute(f"CREATE TEMP TABLE first_{name} AS TABLE public.{name}")
        self._restore = [f"INSERT INTO {name} TABLE first_{name}" for name in self._seeded]
        self._restore += [f"SELECT setval('{name}', {start}, false)" for name, start in await fetch(_SEQUENCES)]
        self._schema, self._size = await self._looks()

    async def _looks(self) -> tuple[list[Any], int]:
        schema = await self._inside.fetch(f"{_SCHEMA} UNION ALL {_SETTINGS} UNION ALL {_GUESSES}")
        return schema, await self._inside.fetchval("SELECT pg_database_size(current_database())")

    async def empty(self) -> bool:
        """Cut whoever is still there and make it as it was; False if that is not possible."""
        await self._inside.fetch(_CUT)
        schema, size = await self._looks()
        if schema != self._schema or size > self._size + ROOM:
            return False
        filled = [row[0] for row in await self._inside.fetch(self._filled)]
        removed = [f"DELETE FROM {name}" for name in {*filled, *self._seeded}]
        await self._inside.execute("; ".join([*removed, *self._restore]))
        return True

    async def remove(self, server: str) -> None:
        self._inside.terminate()
        await execute(server, f"DROP DATABASE {self.name} WITH (FORCE)")


class Again:
    """Lends a process's tests a database, to one at a time. It has an event loop of its own, so each test can too."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._copy: Copy | None = None

    def lend(self) -> str:
        """The URL of a database as the migrations leave it."""
        if self._copy is None:
            self._copy = self._loop.run_until_complete(Copy.make(self._server))
        return named(self._server, self._copy.name)

    def take_back(self) -> None:
        if self._copy is not None and not self._loop.run_until_complete(self._emptied(self._copy)):
            self._drop(self._copy)

    def close(self) -> None:
        if self._copy is not None:
            self._drop(self._copy)
        self._loop.close()

    async def _emptied(self, copy: Copy) -> bool:
        try:
            async with asyncio.timeout(10):
                return await copy.empty()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    def _drop(self, copy: Copy) -> None:
        self._copy = None
        self._loop.run_until_complete(copy.remove(self._server))
