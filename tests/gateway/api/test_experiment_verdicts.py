"""The verdict, the looks and the power calculator over HTTP and by the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.evaluation.keeping import Keeping
from gateway.findings import Word
from gateway.store import experiments
from gateway.store.database import Database
from tests.gateway.api.installation import Installation
from tests.gateway.evaluation.verdicts import BEGAN, experiment, verdict
from tests.gateway.test_cli import Shell, shell  # noqa: F401 - the fixture is used by its name


async def running(db: Database) -> str:
    """acme's experiment, which nobody has been asked in yet, with three looks kept."""
    one = experiment()
    async with db.transaction() as connection:
        await experiments.put(connection, one)
    keeping = Keeping(db, webhook=False)
    for hour, word in enumerate((Word.BLOCKED, Word.KEEP_RUNNING, Word.SHIP)):
        await keeping.verdict(one, verdict(word), BEGAN + timedelta(hours=hour))
    return one.id


async def test_a_verdict_is_of_now_and_what_was_decided_stands_beside_it(here: Installation) -> None:
    await here.tenant("acme")
    found = await here.call("GET", f"/experiments/{await running(here.db)}/verdict")
    assert found["word"] == "blocked" and found["blocks"] == ["too_few_units"] and found["sentence"]
    assert found["stage"] == "experiment" and found["planned_units"] == 500
    assert found["decided"]["word"] == "ship"
    assert datetime.fromisoformat(found["at"]) > datetime.now(UTC) - timedelta(minutes=1)


async def test_looks_are_a_story_from_its_beginning(here: Installation) -> None:
    await here.tenant("acme")
    path = f"/experiments/{await running(here.db)}/looks"
    found = await here.call("GET", path)
    assert [look["word"] for look in found["data"]] == ["blocked", "keep_running", "ship"]
    assert found["data"][0]["at"] < found["data"][1]["at"]
    figure = found["data"][0]["figures"][0]
    assert (figure["metric"], figure["variant"], figure["low"], figure["high"]) == ("helpful", "tuned", -0.1, 0.2)
    assert [look["word"] for look in (await here.call("GET", f"{path}?limit=1"))["data"]] == ["ship"]


async def test_power_is_asked_before_the_start(here: Installation) -> None:
    found = await here.call("POST", "/power", {"base": 0.3, "effect": 0.06, "units_per_day": 500})
    assert found["fixed_units"] == 1921, "(.3 · .7 + .36 · .64) · 2 · ((1.960 + 0.842) / .06)²"
    assert found["fixed_units"] < found["units"] < 2 * found["fixed_units"]
    assert found["days"] == found["units"] / 500
    refused = await here.request("POST", "/admin/v1/power", {"base": 0.3, "effect": 0})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "effect"


@pytest.mark.long
async def test_a_person_asks_the_same_by_the_command_line(shell: Shell, tmp_path: Path) -> None:  # noqa: F811 - as above
    await shell.here.tenant("acme")
    told = await shell.says("experiments", "verdict", await running(shell.here.db))
    assert told.startswith("Blocked: too few units.") and "planned units 500" in told
    said = await shell.says("experiments", "power", "--base", "0.3", "--effect", "0.06", "--per-day", "500")
    assert "days" in said and "planned_units" in said
    assert "effect" in await shell.refuses("experiments", "power", "--base", "0.3", "--effect", "0")
