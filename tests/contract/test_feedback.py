"""The trainer's view of live feedback over a real control plane: plan, do what the plan says, trace, erase."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.contract.test_round import Site, site
from tests.gateway.api.installation import ADMIN_KEY
from tests.trainer import tiny

__all__ = ["site"]  # a fixture

pytestmark = [pytest.mark.timeout(600), pytest.mark.training]  # the site's base model imports torch


async def trainer(site: Site, *words: str) -> Any:
    return await asyncio.to_thread(tiny.shell, *words, GATEWAY_URL=site.url, GATEWAY_KEY=ADMIN_KEY)


async def told(site: Site, *words: str) -> dict[str, Any]:
    done = await trainer(site, *words, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def feedback_of(site: Site, users: int, *, corrections: int) -> None:
    """Each user thumbs one answer, up and down by turns; the first `corrections` users correct theirs."""
    base = {"variants": [{"name": "base", "weight": 1, "ref": "base"}]}
    await site.here.call("PUT", "/tenants/acme/aliases/support", base)
    for n in range(users):
        asked = await site.story.asked(f"user-{n}", "base" if n % 2 else "tuned")
        written = f"a better answer to {n}" if n < corrections else None
        await site.story.said("helpful", written is None and n % 2 == 0, asked, correction=written)


async def test_the_plan_says_what_the_gateways_feedback_supports_and_what_is_missing(site: Site):
    await feedback_of(site, 12, corrections=4)
    where = ("--tenant", "acme", "--alias", "support", "--parameters", "135e6")
    found = await told(site, "plan", *where, "--set", "round.sft_rows=8")
    assert (found["recipe"], found["settings"]["replay.share"]) == ("sft", 0.2)
    assert found["rows"]["sft"] == {"rows": 8, "different": 8, "effective": 8.0, "users": 8}
    assert found["supports"][2]["missing"].startswith("488 more thumbs or ratings before KTO")
    assert found["estimate"]["seconds"][0] < found["estimate"]["seconds"][2] and found["estimate"]["fits"]
    assert f"--round --gateway {site.url} --tenant acme --alias support --name support" in found["command"]
    assert f"--base-model {tiny.NAME}" in found["command"]
    shown = await trainer(site, "plan", *where, "--hardware", "H100")
    assert shown.stdout.startswith("SFT not yet: 4 corrections, 4 liked answers, of 8 users; 42 more corrections")
    assert "the round: none yet" in shown.stdout


async def test_a_round_that_nothing_supports_is_refused_in_a_line(site: Site):
    await feedback_of(site, 3, corrections=1)
    done = await site.run("round", "--round", "--alias", "support")
    assert done.returncode == 1 and not (site.room / "round").exists()
    last = done.stderr.splitlines()[-1]
    assert last.startswith("trainer: the feedback at hand supports no round yet: wait for more (SFT: 48 more")


async def goes_on_from(site: Site, ref: str) -> None:
    """The next round: the alias serves `ref`, nobody corrected anything since, and there are thumbs enough."""
    tuned = {"variants": [{"name": "tuned", "weight": 1, "ref": ref}]}
    await site.here.call("PUT", "/tenants/acme/aliases/support", tuned)
    words = ["--round", "--alias", "support", "--set", "round.sft_rows=8", "--set", "data.held_out_share=0"]
    words += ["--set", "round.kto_labels=8", "--set", "round.kto_lesser=2"]
    done = await site.publishes("next", *words)
    planned = json.loads((site.room / "next/round.json").read_text())["changes"]
    assert planned == {"recipe": "kto", "training.start_from": ref, "training.epochs": 1.0}
    assert (done["ref"], done["feedback"]) == ("acme/support@2", 12)
    shown = await site.here.call("GET", "/tenants/acme/adapters/support/2")
    made = shown["manifest"]["lineage"]
    assert (made["recipe"], made["parent"], made["continues"]) == ("kto", ref, ref)


async def test_the_round_is_trained_traced_and_erased(site: Site):
    await feedback_of(site, 12, corrections=4)
    words = ["--round", "--alias", "support", "--set", "round.sft_rows=8", "--set", "replay.share=0"]
    done = await site.publishes("round", *words, "--set", "data.held_out_share=0")
    assert (done["ref"], done["feedback"]) == ("acme/support@1", 8)
    assert json.loads((site.room / "round/round.json").read_text())["changes"]["recipe"] == "sft"
    again = await site.publishes("round", *words, "--set", "data.held_out_share=0")
    assert again == done

    told_rows = await trainer(site, "lineage", done["ref"])
    assert told_rows.returncode == 0, told_rows.stderr
    local = await trainer(site, "lineage", str(site.room / "round"))
    assert told_rows.stdout == local.stdout and len(local.stdout.splitlines()) == 32
    who = ("lineage", "--user", "user-2", "--tenant", "acme", "--runs", str(site.room))
    found = await told(site, *who)
    assert [(one["ref"], one["rows"]) for one in found["adapters"]] == [("acme/support@1", 1)]
    assert [run["rows"]["train"] for run in found["runs"]] == [1]

    await goes_on_from(site, done["ref"])

    unsure = await trainer(site, *who, "--erase")
    assert unsure.returncode == 1 and unsure.stderr.startswith("trainer: nothing was erased: add --yes")
    erased = await told(site, *who, "--erase", "--yes")
    assert erased["retrain"] == ["acme/support@1", "acme/support@2"] and erased["erased"] == {
        "inferences": 1,
        "feedback": 1,
    }
    kept = (site.room / "round/data/train.jsonl").read_text()
    assert "a better answer to 2" not in kept and "a better answer to 3" in kept
    plan = await told(site, "plan", "--tenant", "acme", "--alias", "support", "--set", "round.sft_rows=8")
    assert plan["rows"]["sft"]["rows"] == 7
