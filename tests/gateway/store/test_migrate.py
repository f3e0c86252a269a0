"""Migrations, on real PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import asyncpg
import pytest

from gateway.domain import Split, Tenant, Unit
from gateway.experiment import By, Stage
from gateway.serving.routing import assign
from gateway.snapshot import Snapshot
from gateway.store import experiments
from gateway.store.database import Database
from gateway.store.migrate import migrate
from gateway.store.snapshots import read_snapshot


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


async def _two_experiments_of_before(url: str) -> None:
    """One that runs and one that was stopped, as the schema 0004 has them."""
    variants = """[{"name": "a", "weight": 1, "ref": null}, {"name": "off", "weight": 0, "ref": null},
                   {"name": "b", "weight": 2, "ref": null}]"""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("INSERT INTO tenants (name, store_content, allow_pinning) VALUES ('t', true, true)")
        for place, (name, status) in enumerate((("live", "running"), ("done", "stopped"))):
            await connection.execute(
                "INSERT INTO experiments (id, tenant, alias, name, variants, metric, status)"
                " VALUES ($1, 't', $1, 'q', $2, 'thumbs', $3)",
                name,
                variants,
                status,
            )
            experiment = None if place else name
            await connection.execute(
                "INSERT INTO aliases (tenant, name, revision, variants, salt, fallback, experiment)"
                " VALUES ('t', $1, 4, $2, 'its salt', 'error', $3)",
                name,
                variants,
                experiment,
            )
            await connection.execute(
                "INSERT INTO alias_revisions (tenant, alias, revision, variants, salt, fallback, experiment, actor,"
                " reason) VALUES ('t', $1, 3, $2, 'its salt', 'error', $1, 'me', 'experiment')",
                name,
                variants,
            )
    finally:
        await connection.close()


async def test_a_running_experiment_of_before_goes_on_with_everybody_on_the_variant_they_had(
    empty_database_url: str,
) -> None:
    await asyncio.to_thread(migrate, empty_database_url, "0004")
    await _two_experiments_of_before(empty_database_url)
    await asyncio.to_thread(migrate, empty_database_url)
    db = await Database.connect(empty_database_url)
    try:
        alias = (await read_snapshot(db)).aliases["t", "live"]
        async with db.transaction() as transaction:
            [done, live] = await experiments.of_tenant(transaction, "t")
    finally:
        await db.close()
    assert alias.split == live.split == Split(Unit.TARGETING_KEY, "its salt", ((0.0, 1.0),), ((1 / 3, "a"), (1.0, "b")))
    plain = replace(alias, experiment=None, split=None)
    for user in map(str, range(200)):
        was, now = (assign(Snapshot(aliases={("t", "live"): one}), Tenant("t"), "live", user) for one in (plain, alias))
        assert (was.variant, now.experiment) == (now.variant, "live")
        assert was.propensity == pytest.approx(now.propensity)
    assert (live.stage, live.plan.primary, done.stage, done.split) == (Stage.EXPERIMENT, "thumbs", Stage.STOPPED, None)
    assert live.plan.roll_back is By.HAND, "nobody asked for a rule when it was started"
    assert [(one.revision, one.weights) for one in (*live.epochs, *done.epochs)] == [(3, (1, 0, 2))] * 2
