"""Migrations, on real PostgreSQL."""

from __future__ import annotations

import asyncio

import asyncpg

from gateway.store.migrate import migrate


async def _fetch(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


async def test_an_empty_database_becomes_the_newest_schema_with_one_secret(empty_database_url: str) -> None:
    await asyncio.to_thread(migrate, empty_database_url)
    [state] = await _fetch(empty_database_url, "SELECT * FROM control_state")
    assert state["version"] == 1
    assert len(state["secret"]) == 32


async def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    await asyncio.to_thread(migrate, empty_database_url)
    before = await _fetch(empty_database_url, "SELECT * FROM control_state")
    await asyncio.to_thread(migrate, empty_database_url)
    assert await _fetch(empty_database_url, "SELECT * FROM control_state") == before


async def test_several_starters_may_migrate_at_once(empty_database_url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate, empty_database_url) for _ in range(4)))
    assert len(await _fetch(empty_database_url, "SELECT * FROM control_state")) == 1
    assert len(await _fetch(empty_database_url, "SELECT * FROM alembic_version")) == 1


async def test_each_installation_has_its_own_secret(empty_database_url: str, database_url: str) -> None:
    await asyncio.to_thread(migrate, empty_database_url)
    [one] = await _fetch(empty_database_url, "SELECT secret FROM control_state")
    [other] = await _fetch(database_url, "SELECT secret FROM control_state")
    assert one != other
