"""The command line against a real control plane on a real socket: what it prints, where, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import Result
from typer.testing import CliRunner

from adapters.examples import read_jsonl
from adapters.lineage import LineageRow
from adapters.package import tar_of, tar_size
from gateway.cli import app
from gateway.cli.adapters import _files_of
from gateway.identity import unit_of
from gateway.store.database import Database
from tests.gateway.api.installation import ADMIN_KEY, Installation, installed
from tests.gateway.api.test_routes import judged, packed
from tests.gateway.api.test_shadows import mirrored


class Shell:
    """A person's shell with GATEWAY_URL and GATEWAY_ADMIN_KEY set."""

    def __init__(self, here: Installation, url: str) -> None:
        self.here = here
        self.env = {"GATEWAY_URL": url, "GATEWAY_ADMIN_KEY": ADMIN_KEY}

    async def run(self, *words: str, **env: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, list(words), env=self.env | env)

    async def says(self, *words: str) -> str:
        """What a command that must succeed prints, without its last line end."""
        result = await self.run(*words)
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
        await self.here.settle()
        return result.stdout.removesuffix("\n")

    async def refuses(self, *words: str, **env: str) -> str:
        """The one sentence of a command that must fail."""
        result = await self.run(*words, **env)
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert result.stderr.count("\n") == 1, result.stderr
        return result.stderr.strip()


@pytest.fixture
async def shell(db: Database, tmp_path: Path) -> AsyncIterator[Shell]:
    async with installed(db, tmp_path) as here, asyncio.TaskGroup() as group:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(here.app, log_config=None, lifespan="off"))
        task = group.create_task(server.serve(sockets=[listener]))
        yield Shell(here, f"http://127.0.0.1:{listener.getsockname()[1]}")
        server.should_exit = True
        await task


async def test_a_created_tenant_and_key_are_printed_alone(shell: Shell):
    assert await shell.says("tenants", "create", "acme", "--store-content") == "acme"
    assert await shell.says("tenants", "list") == "acme\tyes\tyes\t1\t-"
    assert await shell.says("tenants", "update", "acme", "--no-allow-pinning") == "acme"
    assert json.loads(await shell.says("tenants", "list", "--json"))[0]["allow_pinning"] is False
    key = await shell.says("keys", "create", "acme", "--scope", "admin")
    assert key.startswith("tl-") and len(key.split()) == 1
    reply = await shell.here.request("GET", "/admin/v1/tenants", key=key)
    assert reply.status_code == 200
    made = json.loads(await shell.says("keys", "create", "acme", "--json"))
    assert made["scopes"] == ["feedback", "inference"]
    assert await shell.says("keys", "revoke", "acme", made["id"]) == made["id"]
    lines = [line.split("\t") for line in (await shell.says("keys", "list", "acme")).splitlines()]
    assert [len(line) for line in lines] == [7, 7] and lines[0][-2] == "-" and lines[1][-2] != "-"


async def test_metrics_are_declared_and_listed(shell: Shell):
    await shell.says("tenants", "create", "acme")
    said = await shell.says("metrics", "declare", "acme", "cost", "--kind", "float", "--optimize", "min")
    assert said == "cost"
    assert "cost\tfloat\tmin\t-" in (await shell.says("metrics", "list", "acme")).splitlines()


async def test_the_loops_commands_from_directory_to_rollback(shell: Shell, tmp_path: Path):
    await shell.says("tenants", "create", "acme", "--store-content")
    key = await shell.says("keys", "create", "acme")
    uploaded = await shell.says("adapters", "register", "acme", str(packed(tmp_path, 1)), "--name", "support")
    assert uploaded == "acme/support@1"
    other = shell.here.control.publish(seed=2)
    assert await shell.says("adapters", "register", "acme", "support@2") == str(other)
    listed = [line.split("\t") for line in (await shell.says("adapters", "list", "acme")).splitlines()]
    assert [line[0] for line in listed] == ["acme/support@1", "acme/support@2"]
    assert listed[0][1].startswith("sha256:")

    variants = ("--variant", "base=3:base", "--variant", "tuned=1:support@1")
    said = await shell.says("aliases", "set", "acme", "support", *variants, "--fallback", "base")
    assert said == "support\t1\tbase=3:base tuned=1:acme/support@1\tbase\t-\t-"
    experiment = await shell.says("experiments", "start", "acme", "support", "--name", "q", "--metric", "thumbs")
    assert (await shell.says("aliases", "show", "acme", "support")).endswith(f"\t{experiment}\t-")
    await judged(shell.here, key, experiment)
    await _watch(shell, experiment)

    assert "tuned=1:acme/support@2" in await shell.says("aliases", "promote", "acme", "support", "support@2")
    assert "base=1:base" in await shell.says("aliases", "rollback", "acme", "support")
    assert (await shell.says("aliases", "list", "acme")).startswith("support\t")
    await _look(shell, tmp_path)


@pytest.mark.long
async def test_a_shadow_is_set_looked_at_and_removed(shell: Shell):
    await shell.says("tenants", "create", "acme")
    await shell.says("adapters", "register", "acme", str(shell.here.control.publish()).removeprefix("acme/"))
    await shell.says("aliases", "set", "acme", "support", "--variant", "plain=1:base")
    said = await shell.says("aliases", "shadow", "acme", "support", "support@1", "--share", "0.1")
    assert said == "support\t2\tplain=1:base\terror\t-\t0.1:acme/support@1"
    await mirrored(shell.here)
    heading, row = (await shell.says("aliases", "shadow", "acme", "support")).splitlines()
    assert len(heading.split("\t")) == len(row.split("\t")) == 11
    assert row.startswith("acme/support@1\t2\t1\t0.5\t1\t30\t20\t")
    assert json.loads(await shell.says("aliases", "shadow", "acme", "support", "--json"))["shadow"]["share"] == 0.1
    assert (await shell.says("aliases", "shadow", "acme", "support", "--off")).endswith("\t-\t-")
    for words in (("support@1",), ("--share", "0.1"), ("support@1", "--share", "0.1", "--off"), ("x", "--share", "2")):
        assert (await shell.run("aliases", "shadow", "acme", "support", *words)).exit_code == 2
    refusal = await shell.refuses("aliases", "shadow", "acme", "support", "support@9", "--share", "0.1")
    assert "acme/support@9" in refusal


async def _watch(shell: Shell, experiment: str) -> None:
    """The experiment's status, and its end."""
    heading, base, tuned = (
        line.split("\t") for line in (await shell.says("experiments", "status", experiment)).splitlines()
    )
    assert len(heading) == len(base) == len(tuned) == 11
    assert dict(zip(heading, tuned, strict=True)) | {"low": "", "high": ""} == {
        "variant": "tuned",
        "ref": "acme/support@1",
        "requests": "3",
        "share": "0.6",
        "users": "3",
        "judged": "3",
        "mean": "0.6667",
        "low": "",
        "high": "",
        "difference": "0.6667",
        "verdict": "open",
    }
    assert await shell.says("experiments", "stop", experiment) == experiment
    assert (await shell.says("experiments", "list", "acme")).split("\t")[:4] == [experiment, "support", "q", "stopped"]


async def _look(shell: Shell, directory: Path) -> None:
    """Export, audit and engine, on what the loop left."""
    printed = await shell.says("export", "acme")
    assert [row.label for row in read_jsonl(printed.splitlines())] == [False, False, True, True, False]
    file = directory / "rows.jsonl"
    assert await shell.says("export", "acme", "--alias", "support", "--output", str(file)) == ""
    assert file.read_text().rstrip() == printed
    newest = (await shell.says("audit", "--tenant", "acme", "--limit", "1")).split("\t")
    assert newest[1:] == ["operator", "acme", "alias.rollback", "support"]
    assert "base_model\tdemo/tiny" in await shell.says("engine")


@pytest.mark.long
async def test_limits_are_set_shown_and_removed(shell: Shell):
    await shell.says("tenants", "create", "acme", "--requests-per-minute", "60", "--weight", "2.5")
    await shell.says("tenants", "update", "acme", "--tokens-per-day", "1000", "--requests-per-minute", "none")
    assert await shell.says("tenants", "list") == "acme\tno\tyes\t2.5\ttokens_per_day=1000"
    made = json.loads(await shell.says("keys", "create", "acme", "--concurrent-requests", "3", "--json"))
    assert made["limits"] == {"concurrent_requests": 3}
    assert await shell.says("keys", "limit", "acme", made["id"], "--tokens-per-month", "9") == made["id"]
    assert (await shell.says("keys", "list", "acme")).endswith("\tconcurrent_requests=3,tokens_per_month=9")
    assert "greater than or equal to 1" in await shell.refuses("tenants", "update", "acme", "--tokens-per-day", "0")
    assert "limits" in await shell.refuses("keys", "limit", "acme", made["id"])
    wrong = await shell.run("tenants", "update", "acme", "--tokens-per-day", "-5")
    assert wrong.exit_code == 2 and "--tokens-per-day" in wrong.stderr


async def test_a_refusal_is_the_gateways_sentence_on_standard_error(shell: Shell):
    await shell.says("tenants", "create", "acme")
    assert "already" in await shell.refuses("tenants", "create", "acme")
    assert "`nobody`" in await shell.refuses("keys", "create", "nobody")
    assert "support@9" in await shell.refuses("adapters", "register", "acme", "support@9")
    assert "--store-content" in await shell.refuses("export", "acme")
    assert "API key" in await shell.refuses("tenants", "list", GATEWAY_ADMIN_KEY="wrong")
    assert "GATEWAY_ADMIN_KEY" in await shell.refuses("tenants", "list", GATEWAY_ADMIN_KEY="")
    assert "gateway serve" in await shell.refuses("tenants", "list", GATEWAY_URL="http://127.0.0.1:1")
    assert "http://" in await shell.refuses("tenants", "list", GATEWAY_URL="nonsense")


async def test_what_a_person_types_stays_one_part_of_the_path(shell: Shell):
    await shell.says("tenants", "create", "acme")
    for name in ("../tenants", "acme/keys", "?", "a b", "acme%2Fkeys", ""):
        await shell.refuses("keys", "list", name)


async def test_a_directory_that_is_no_adapter_is_not_sent(shell: Shell, tmp_path: Path):
    await shell.says("tenants", "create", "acme")
    (empty := tmp_path / "empty").mkdir()
    assert "no adapter_model.safetensors" in await shell.refuses("adapters", "register", "acme", str(empty))


def test_the_tar_that_is_sent_is_as_long_as_announced_and_what_tar_reads(tmp_path: Path):
    sizes = _files_of(packed(tmp_path, 1))
    archive = tmp_path / "sent.tar"
    archive.write_bytes(b"".join(tar_of(sizes)))
    assert archive.stat().st_size == tar_size(sizes)
    listed = subprocess.run(["tar", "tf", str(archive)], capture_output=True, text=True, check=True).stdout
    assert sorted(listed.split()) == sorted(path.name for path in sizes)


def gateway(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    command = [sys.executable, "-m", "gateway", *words]
    return subprocess.run(command, env=known | env, capture_output=True, text=True, timeout=60)


def test_wrong_usage_ends_with_2_and_says_what_to_write():
    for words in (
        ("aliases", "set", "acme", "support", "--variant", "tuned"),
        ("aliases", "set", "acme", "support"),
        ("keys", "create", "acme", "--scope", "everything"),
        ("serve", "--port", "70000"),
        ("nonsense",),
    ):
        ended = CliRunner().invoke(app, list(words))
        assert ended.exit_code == 2 and ended.stdout == "" and ended.stderr, words


def test_a_malformed_setting_is_named_in_a_sentence():
    ended = gateway("serve", GATEWAY_WORKERS="many")
    assert ended.returncode == 2 and ended.stderr.startswith("GATEWAY_WORKERS: "), ended.stderr


def test_help_imports_nothing_heavy():
    """Half a second on a quiet machine; what is imported decides it, and that does not depend on the load."""
    program = "import sys; sys.argv = ['gateway', '--help']\nfrom gateway.cli import main\n"
    program += "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    loaded: set[Any] = set(ended.stderr.split())
    assert ended.returncode == 0 and "experiments" in ended.stdout
    assert not loaded & {"httpx", "pydantic", "fastapi", "asyncpg", "numpy", "rich", "uvicorn"}
    assert time.perf_counter() - started < 5


@pytest.mark.long
async def test_a_users_rows_are_found_in_versions_and_erased(shell: Shell):
    await shell.says("tenants", "create", "acme", "--store-content")
    shell.here.control.publish(seed=1)
    await shell.says("adapters", "register", "acme", "support@1")
    assert (await shell.says("adapters", "list", "acme")).endswith("\tno\t-\t-")
    unit = unit_of(shell.here.current.snapshot.secret, "acme", "ann")
    row = LineageRow(row="sha256:1", unit=unit, feedback_ids=["fb-1"])
    path = "/admin/v1/tenants/acme/adapters/support/1/lineage"
    await shell.here.request("POST", path, content=row.to_json().encode())
    found = "acme/support@1\t1\tno\t-"
    for option in (("--user", "ann"), ("--unit", unit), ("--feedback", "fb-1")):
        assert await shell.says("lineage", "acme", *option) == found
    assert await shell.says("lineage", "acme", "support@1") == row.to_json()
    said = await shell.says("users", "erase", "acme", "--user", "ann")
    assert said == "inferences\t0\nfeedback\t0\nretrain\tacme/support@1"
    for words in (("lineage", "acme"), ("users", "erase", "acme"), ("lineage", "acme", "support@1", "--user", "ann")):
        assert (await shell.run(*words)).exit_code == 2
    assert await shell.says("export", "acme", "--format", "judged") == ""
