"""The gate over real HTTP: a whole gateway with the shipped fake engine, and `trainer run` on a run that is trained.

The fake answers with the version's name and a word of its weights, so that a reference can be what one version says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from adapters.examples import Example
from adapters.manifest import Manifest
from gateway.engine.fake_answers import Voice, say, word_of
from loadtests.demo.gateway import DemoFailed, Gateway, running
from loadtests.engine.random_adapter import write_adapter
from tests.trainer import tiny
from trainer import cli
from trainer.config import RunSettings
from trainer.publish import package
from trainer.runlog import RunDirectory

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]
ROWS = 24
REFUSED = 3


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("gateway")
    fake: Any = {"engine": ("--engine", "fake"), "settings": {"GATEWAY_ENGINE__ARGS": "[]"}}
    with running(home, base_model=tiny.NAME, model_path=tiny_model, say=lambda _: None, **fake) as there:
        there.tenant("acme", store_content=False)
        yield there


@dataclass
class Run:
    """A run that is trained: what is left is its gate and its publication."""

    gateway: Gateway
    settings: RunSettings
    name: str

    @property
    def gate(self) -> Path:
        return self.settings.run_dir / "gate"

    def command(self, *more: str) -> list[str]:
        given = [f"publish.name={self.name}", "publish.tenant=acme", "gate.policy.figure=exact_match"]
        given += ["gate.parity_rows=0", "gate.max_tokens=64", *more]
        words = [part for one in given for part in ("--set", one)]
        return [*tiny.command(self.settings, "--json"), *words]

    def finish(self, *more: str) -> Result:
        return shell(self.gateway, *self.command(*more)[3:])

    def adapters(self) -> dict[str, dict[str, Any]]:
        listed = self.gateway.call("GET", "/tenants/acme/adapters")["data"]
        return {row["ref"]: row for row in listed if row["name"] in (self.name, f"{self.name}.trial")}


def access(gateway: Gateway) -> dict[str, str]:
    return {"GATEWAY_URL": gateway.url, "GATEWAY_KEY": gateway.admin_key}


def shell(gateway: Gateway, *words: str) -> Result:
    """`trainer` as a person runs it, but in this process, which has imported torch already."""
    return CliRunner().invoke(cli.app, words, env=access(gateway), catch_exceptions=False)


def trained(gateway: Gateway, room: Path, model: Path, name: str, *, likes: str) -> Run:
    """A run with random weights, whose held-out references are what `likes` ("base" or "candidate") says."""
    settings = tiny.settings(room, model)
    run = RunDirectory(settings)
    saved = write_adapter(room / "saved", model, seed=len(name), rank=8)
    voice = Voice("base", word_of(b"base"))
    if likes == "candidate":
        voice = Voice(f"acme/{name}.trial@1", word_of((saved / "adapter_model.safetensors").read_bytes()))
    prompts = [f"question {n}" for n in range(ROWS)]
    rows = [
        Example(messages=[{"role": "user", "content": prompt}], completion=say(voice, prompt, index=0, tokens=16))
        for prompt in prompts
    ]
    run.keep_data(rows, rows, {})
    package(run, saved, settings, base=model, metrics={})
    run.keep_result({"steps": 0})
    run.close()
    return Run(gateway, settings, name)


def test_a_better_candidate_is_accepted_published_and_may_serve(gateway: Gateway, tmp_path: Path, tiny_model: Path):
    run = trained(gateway, tmp_path, tiny_model, "better", likes="candidate")
    done = run.finish()
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == "accepted"
    assert told["reason"] == "exact match 1.00 against 0.00 of the base (+1.00, 95 % from +1.00): accepted"
    manifest = gateway.call("GET", "/tenants/acme/adapters/better/1")["manifest"]
    figures = manifest["gate"]["figures"]
    assert manifest["gate"] | {"figures": {}} == {
        "verdict": "accepted", "reason": told["reason"], "compared_with": "base", "figures": {}
    }  # fmt: skip
    assert (figures["candidate.exact_match"], figures["base.exact_match"], figures["rows"]) == (1.0, 0.0, ROWS)
    assert figures["difference.token_f1.low"] > 0 and figures["candidate.loss"] > 0
    rows = run.adapters()
    assert (rows["acme/better@1"]["retired"], rows["acme/better.trial@1"]["retired"]) == (False, True)
    gateway.point("acme", "better", {"tuned": (1, "acme/better@1")})
    page = (run.gate / "report.html").read_text()
    assert "<svg" in page and told["reason"] in page and "<script" not in page
    lines = [json.loads(line) for line in (run.gate / "rows.jsonl").read_text().splitlines()]
    assert sum(line["candidate"]["answer"] == line["row"]["completion"] for line in lines) == ROWS
    assert keys_left(gateway) == []
    assert run.finish().stdout == done.stdout  # once more: decided and published already
    asked = (run.gate / "asked.jsonl").read_bytes()
    again = run.finish("gate.policy.by=2")  # another policy decides anew, by the answers that are there
    assert again.exit_code == REFUSED and "it is not better by more than 2" in again.stderr
    assert (run.gate / "asked.jsonl").read_bytes() == asked
    assert {ref: row["retired"] for ref, row in run.adapters().items()} == {
        "acme/better.trial@1": True,
        "acme/better.trial@2": True,
        "acme/better@1": False,
        "acme/better@2": False,
    }


def test_a_worse_candidate_is_published_as_refused_and_never_serves(gateway: Gateway, tmp_path: Path, tiny_model: Path):
    run = trained(gateway, tmp_path, tiny_model, "worse", likes="base")
    done = run.finish()
    assert done.exit_code == REFUSED, done.stderr
    assert (
        "exact match 0.00 against 1.00 of the base (-1.00, 95 % from -1.00): refused, it is not better" in done.stderr
    )
    told = json.loads(done.stdout)
    assert (told["ref"], told["verdict"]) == ("acme/worse@1", "refused")
    assert Manifest.read(run.settings.run_dir / "adapter").gate is not None
    with pytest.raises(DemoFailed, match=r"409.*version_refused"):
        gateway.point("acme", "worse", {"tuned": (1, "acme/worse@1")})
    assert keys_left(gateway) == []


def test_a_gate_that_is_killed_asks_only_the_rest_and_leaves_nothing_behind(
    gateway: Gateway, tmp_path: Path, tiny_model: Path
):
    run = trained(gateway, tmp_path, tiny_model, "killed", likes="candidate")
    kept = run.gate / "asked.jsonl"
    process = subprocess.Popen(
        run.command("gate.at_once=1"),
        env={**os.environ, **access(gateway)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if kept.exists() and kept.read_bytes().count(b"\n") >= 30:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the gate was done before it could be killed"
    before = kept.read_bytes()
    assert len(keys_left(gateway)) == 1
    done = run.finish("gate.at_once=1")
    assert done.exit_code == 0, done.stderr
    whole = before[: before.rindex(b"\n") + 1]
    assert kept.read_bytes().startswith(whole) and len(kept.read_bytes()) > len(whole)
    asked = [json.loads(line)["asked"] for line in kept.read_text().splitlines()]
    assert len(asked) == len(set(asked))
    assert {ref: row["retired"] for ref, row in run.adapters().items()} == {
        "acme/killed.trial@1": True,
        "acme/killed@1": False,
    }
    assert keys_left(gateway) == []


def test_any_versions_are_put_side_by_side_without_a_run(gateway: Gateway, tmp_path: Path, tiny_model: Path):
    rows = tmp_path / "rows.jsonl"
    says = say(Voice("base", word_of(b"base")), "hello", index=0, tokens=16)
    rows.write_text("".join(json.dumps({"prompt": "hello", "completion": says}) + "\n" for _ in range(20)))
    words = ("eval", "base", "acme/worse@1", "--data", str(rows), "--json")
    found = json.loads(shell(gateway, *words).stdout)
    figures = {line["name"]: line for line in found["figures"]}
    assert figures["exact_match"]["values"] == {"base": 1.0, "acme/worse@1": 0.0}
    assert figures["exact_match"]["differences"]["acme/worse@1"]["high"] < 0
    assert "loss" not in figures  # no tokenizer was named
    table = shell(gateway, *words[:-1], "--model-path", str(tiny_model))
    assert table.exit_code == 0, table.stderr
    assert "exact match" in table.stdout and "loss" in table.stdout and "20 rows" in table.stdout


def keys_left(gateway: Gateway) -> list[str]:
    """The gate's keys that still open something."""
    rows = gateway.call("GET", "/tenants/acme/keys")["data"]
    return [row["id"] for row in rows if "evaluate" in row["scopes"] and row["revoked_at"] is None]


def test_a_key_for_evaluation_is_nobody_elses(gateway: Gateway):
    """What the gate may ask, a tenant's ordinary key may not: the versions it named are unknown to that."""
    key = gateway.key("acme", ["inference"])
    body = {"model": "acme/worse@1", "messages": [{"role": "user", "content": "hello"}]}
    reply = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})
    assert reply.status_code == 404
