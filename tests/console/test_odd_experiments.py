"""Experiments that have little to show: one from before plans were kept, and one that nobody ever looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.store.database import Database
from gateway.store.tallies import LOCK
from tests.console.visits import Visits, visits
from tests.gateway.api.test_routes import compare


@pytest.fixture
async def here(db: Database, tmp_path: Path) -> AsyncIterator[Visits]:
    async with visits(db, tmp_path) as one:
        yield one


@pytest.mark.long
async def test_one_without_a_plan_a_word_or_a_look_has_its_pages(here: Visits) -> None:
    one = str((await compare(here.here))["id"])
    async with here.here.db.transaction() as connection:
        await connection.execute(
            "UPDATE experiments SET plan = '{}', owner = '', name = '<b>old</b>' WHERE id = $1", one
        )
    assert "&lt;b&gt;old&lt;/b&gt;" in await here.acme.page("experiments")
    page = await here.acme.page(f"experiments/{one}")
    assert "Nothing was looked at so far" in page and "none: only traffic is shown" in page and "<b>old" not in page
    assert "No request has come to it yet." in await here.acme.page(f"experiments/{one}/served")
    assert (await here.acme.send(f"experiments/{one}/stop", why="it was forgotten")).status_code == 303
    page = await here.acme.page(f"experiments/{one}")
    assert "It ended before anybody looked at it" in page and "Nothing was looked at so far" not in page
    assert "none yet" in await here.acme.page("experiments")


@pytest.mark.long
async def test_one_whose_requests_are_not_counted_yet_says_so(here: Visits) -> None:
    one = str((await compare(here.here))["id"])
    async with here.here.db.transaction() as connection:  # somebody else counts, for longer than a reader waits
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        page = await here.acme.page(f"experiments/{one}/served")
    assert "Not all that came in is counted yet" in page and "No request has come" not in page
