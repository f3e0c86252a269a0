"""An experiment over HTTP and from the command line, from its plan to its end: each answer is the whole of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.api.installation import Installation
from tests.gateway.test_cli import Shell, shell

__all__ = ["shell"]

PLAN = {
    "primary": "thumbs",
    "secondaries": ["latency"],
    "guardrails": [{"metric": "error_rate", "margin": 0.02}],
    "planned_units": 2000,
    "ship": "rule",
}


async def begun(here: Installation, **more: Any) -> dict[str, Any]:
    """A canary of `support@1` against base."""
    await here.tenant("acme")
    ref = here.control.publish(seed=1)
    await here.call("POST", "/tenants/acme/adapters", {"ref": str(ref)})
    base = {"name": "base", "weight": 1, "ref": "base"}
    await here.call("PUT", "/tenants/acme/aliases/support", {"variants": [base]})
    body = {
        "alias": "support",
        "name": "is it better",
        "hypothesis": "more tickets are solved",
        "owner": "ann",
        "candidates": [{"name": "tuned", "weight": 1, "ref": "support@1"}],
        "plan": PLAN,
        "stage": "canary",
        "canary_coverage": 0.02,
        "coverage": 0.5,
        "layer": "copy",
    }
    found: dict[str, Any] = await here.call("POST", "/tenants/acme/experiments", {**body, **more})
    return found


async def test_every_answer_is_the_whole_experiment(here: Installation):
    one = await begun(here)
    path = f"/experiments/{one['id']}"
    assert one["plan"] == {
        **PLAN, "guardrails": [{"metric": "error_rate", "margin": 0.02, "relative": False}], "alpha": 0.05,
        "burn_in": 100, "cuped_days": 0, "canary_units": 100, "widen": "hand", "roll_back": "rule",
        "allocation": "fixed",
    }  # fmt: skip
    assert (one["stage"], one["status"], one["layer"], one["unit"]) == ("canary", "running", "copy", "targeting_key")
    assert (one["coverage_now"], one["coverage"], one["testers"]) == (pytest.approx(0.02), 0.5, 0)
    assert one["shares"] == {"base": 0.5, "tuned": 0.5} and [each["weights"] for each in one["epochs"]] == [[1, 1]]
    assert (one["hypothesis"], one["owner"], one["metric"]) == ("more tickets are solved", "ann", "thumbs")
    assert await here.call("GET", path) == one
    assert "salt" not in str(one)

    wide = await here.call("POST", f"{path}/advance", {"why": "held", "figures": {"errors": 0.01, "users": [90, 91]}})
    assert (wide["stage"], wide["coverage_now"]) == ("experiment", 0.5)
    assert (await here.call("POST", f"{path}/coverage", {"coverage": 1}))["coverage_now"] == 1
    weights = {"why": "it looks good", "weights": {"tuned": 3, "base": 1}}
    shifted = await here.call("POST", f"{path}/weights", weights)
    assert shifted["shares"] == {"base": 0.25, "tuned": 0.75}
    assert [each["weights"] for each in shifted["epochs"]] == [[1, 1], [1, 3]]
    tester = {"targeting_key": "qa-4", "variant": "tuned"}
    assert (await here.call("POST", f"{path}/overrides", tester))["testers"] == 1
    assert (await here.call("POST", f"{path}/overrides", {**tester, "variant": None}))["testers"] == 0
    paused = await here.call("POST", f"{path}/pause?why=incident%2012")
    assert (paused["status"], paused["coverage_now"], paused["shares"]) == ("paused", 0, {})
    assert (await here.call("POST", f"{path}/resume"))["status"] == "running"
    done = await here.call("POST", f"{path}/promote", {"why": "it won", "variant": "tuned", "figures": {"lift": 0.3}})
    assert (done["stage"], done["status"], done["stop_reason"]) == ("promoted", "stopped", "it won")
    alias = await here.call("GET", "/tenants/acme/aliases/support")
    assert [variant["ref"] for variant in alias["variants"]] == ["acme/support@1"] and alias["experiment"] is None
    told = (await here.call("GET", "/audit?tenant=acme&limit=3"))["data"]
    assert told[0]["action"] == "experiment.promote" and told[0]["detail"]["figures"] == {"lift": 0.3}


async def test_what_cannot_be_is_refused_where_it_is_said(here: Installation):
    one = await begun(here)
    for step, body, status, word in (
        ("weights", {"why": "x", "weights": {"tuned": 1}}, 400, "base, tuned"),
        ("weights", {"why": "x", "weights": {"tuned": 1, "base": 0}}, 400, "the control"),
        ("promote", {"why": "x", "variant": "base"}, 400, "Promote one of: tuned"),
        ("promote", {"why": "", "variant": "tuned"}, 400, "why"),
        ("promote", {"why": "x", "variant": "tuned", "figures": {"x": "y" * 20_001}}, 400, "figures"),
        ("coverage", {"coverage": 0.01}, 400, "canary"),
        ("overrides", {"targeting_key": "ann", "variant": "none-such"}, 404, "does not exist"),
        ("advance", {}, 400, "why"),
    ):
        reply = await here.request("POST", f"/admin/v1/experiments/{one['id']}/{step}", body)
        assert (reply.status_code, word in reply.text) == (status, True), (step, body, reply.text)
    assert (await here.request("POST", f"/admin/v1/experiments/{one['id']}/pause?why=%00")).status_code == 400
    assert await here.call("GET", f"/experiments/{one['id']}") == one
    assert (await here.call("POST", f"/experiments/{one['id']}/rollback", {"why": "worse"}))["stage"] == "rolled_back"
    for step, body in (("advance", {"why": "x"}), ("promote", {"why": "x", "variant": "tuned"}), ("pause", None)):
        reply = await here.request("POST", f"/admin/v1/experiments/{one['id']}/{step}", body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "ended")


async def test_metrics_say_their_unit_and_what_a_ratio_divides(here: Installation):
    await here.tenant("acme")
    clicks = await here.call("POST", "/tenants/acme/metrics", {"name": "clicks", "kind": "count", "unit": "clicks"})
    ratio = {"name": "rate", "kind": "ratio", "numerator": "clicks", "denominator": "output_tokens"}
    assert (await here.call("POST", "/tenants/acme/metrics", ratio)).items() >= ratio.items()
    assert (clicks["unit"], clicks["numerator"]) == ("clicks", None)
    reply = await here.request("POST", "/admin/v1/tenants/acme/metrics", {"name": "x", "kind": "ratio"})
    assert reply.status_code == 400 and "Name its numerator" in reply.text


@pytest.mark.long
async def test_a_product_team_leads_an_experiment_from_the_command_line(shell: Shell, tmp_path: Path):
    await shell.says("tenants", "create", "acme")
    await shell.says("adapters", "register", "acme", str(shell.here.control.publish(seed=2)))
    await shell.says("aliases", "set", "acme", "support", "--variant", "base=1:base")
    await shell.says("metrics", "declare", "acme", "clicks", "--kind", "count", "--unit", "clicks")
    ratio = ("--kind", "ratio", "--numerator", "clicks", "--denominator", "output_tokens")
    assert await shell.says("metrics", "declare", "acme", "clicks-per-token", *ratio) == "clicks-per-token"
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(PLAN))
    options = (
        "--stage",
        "canary",
        "--canary",
        "0.02",
        "--coverage",
        "0.5",
        "--hypothesis",
        "it helps",
        "--widen",
        "rule",
    )
    guards = ("--guardrail", "latency=10%", "--guardrail", "error_rate=0.02", "--secondary", "clicks-per-token")
    one = await shell.says(
        "experiments", "start", "acme", "support", "--candidate", "tuned=1:support@1", "--plan", str(plan),
        *options, *guards,
    )  # fmt: skip
    found = json.loads(await shell.says("experiments", "show", one, "--json"))
    assert (found["plan"]["ship"], found["plan"]["widen"], found["plan"]["planned_units"]) == ("rule", "rule", 2000)
    assert found["plan"]["secondaries"] == ["clicks-per-token"]
    assert found["plan"]["guardrails"] == [
        {"metric": "latency", "margin": 0.1, "relative": True},
        {"metric": "error_rate", "margin": 0.02, "relative": False},
    ]
    shown = dict(line.split("\t", 1) for line in (await shell.says("experiments", "show", one)).splitlines())
    assert (shown["stage"], shown["coverage_now"], shown["hypothesis"]) == ("canary", "0.02", "it helps")
    await lead(shell, one)
    plan.write_text("[]")
    assert "no JSON object" in await shell.refuses("experiments", "start", "acme", "support", "--plan", str(plan))
    assert "Cannot read a plan" in await shell.refuses("experiments", "start", "acme", "support", "--plan", "/none")


async def lead(shell: Shell, one: str) -> None:
    """Every step there is, to a promotion."""

    async def line(*words: str) -> list[str]:
        return (await shell.says("experiments", *words)).split("\t")

    assert (await line("advance", one, "--why", "it held"))[5:] == ["experiment", "0.5"]
    assert (await line("coverage", one, "0.75"))[5:] == ["experiment", "0.75"]
    assert (await line("weights", one, "base=1", "tuned=2", "--why", "more"))[0] == one
    assert (await line("override", one, "qa-4", "tuned"))[0] == one
    assert (await line("override", one, "qa-4"))[0] == one
    assert (await line("pause", one, "--why", "incident"))[3] == "paused"
    assert (await line("resume", one))[3] == "running"
    assert (await line("list", "acme"))[5:] == ["experiment", "0.75"]
    assert (await line("promote", one, "tuned", "--why", "it won"))[5:] == ["promoted", "0"]
    assert "has ended (promoted)" in await shell.refuses("experiments", "rollback", one, "--why", "no")
    for words in (("weights", one, "tuned", "--why", "x"), ("start", "acme", "a", "--guardrail", "latency")):
        assert (await shell.run("experiments", *words)).exit_code == 2
