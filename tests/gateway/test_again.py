"""The database that is used again: nothing of one test reaches the next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from tests.gateway.again import Again

LEFT = """
    SELECT (SELECT count(*) FROM tenants), (SELECT secret FROM control_state),
           (SELECT last_value FROM pg_sequences WHERE sequencename = 'audit_id_seq'),
           (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lingerer'),
           (SELECT count(*) FROM pg_constraint WHERE conname = 'unsound')
"""


def asked(url: str, *statements: str) -> Any:
    """What the last statement answers; the connection is closed as a crash closes it."""

    async def ask() -> Any:
        connection = await asyncpg.connect(url)
        try:
            answers = [await connection.fetch(statement) for statement in statements]
        finally:
            connection.terminate()
        return answers[-1]

    return asyncio.run(ask())


@pytest.fixture
def again(postgres_url: str) -> Iterator[Again]:
    one = Again(postgres_url)
    yield one
    one.close()


def test_rows_seeds_and_numbers_are_as_the_migrations_left_them(again: Again) -> None:
    url = again.lend()
    before = asked(url, LEFT)
    tenant = "INSERT INTO tenants (name, store_content, allow_pinning) VALUES ('acme', false, false)"
    asked(url, tenant, "UPDATE control_state SET secret = 'another'", "SELECT nextval('audit_id_seq')")
    assert asked(url, LEFT) != before
    again.take_back()
    assert again.lend() == url
    assert asked(url, LEFT) == before


def test_who_is_still_connected_is_cut(again: Again) -> None:
    async def linger(url: str) -> None:
        connection = await asyncpg.connect(url, server_settings={"application_name": "lingerer"})
        await asyncio.to_thread(again.take_back)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await connection.execute("SELECT 1")

    url = again.lend()
    asyncio.run(linger(url))
    assert again.lend() == url


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE tallies ADD CONSTRAINT unsound CHECK (true)",
        "CREATE INDEX another ON tenants (created_at)",
        "ANALYZE tenants",
        "ANALYZE control_state",
        "ALTER DATABASE {} SET work_mem = '1MB'",
        "CREATE TABLE another AS SELECT repeat(md5(i::text), 100) FROM generate_series(1, 50000) i",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    ],
)
def test_what_cannot_be_emptied_is_made_anew(again: Again, change: str) -> None:
    url = again.lend()
    before = asked(url, LEFT)
    asked(url, change.format(url.split("?")[0].rsplit("/", 1)[1]))
    again.take_back()
    assert again.lend() != url
    assert asked(again.lend(), LEFT) == before
