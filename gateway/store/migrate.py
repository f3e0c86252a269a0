"""Brings a database to the newest schema. It knows Alembic, and no table.

Several processes may start at once: an advisory lock lets one migrate while the others wait and then find nothing to
do. All steps are one transaction, so a migration that fails or is killed leaves the schema as it was.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

_LOCK = 7_806_110_145_001
"""The advisory lock's number; any will do that nobody else uses."""


def migrate(url: str, revision: str = "head") -> None:
    """Upgrade the database at `url` to the newest schema, or to `revision`. Blocks; not for a thread with a running
    event loop.

    Raises `OSError` or an asyncpg error when the database cannot be reached.
    """
    asyncio.run(_migrate(url, revision))


async def _migrate(url: str, revision: str) -> None:
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url), poolclass=NullPool
    )
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade, revision)


def _upgrade(connection: Connection, revision: str) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
