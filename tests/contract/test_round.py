"""One round between the real trainer and the real control plane, over a socket: feedback out, adapter version in."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from adapters.ref import AdapterRef
from adapters.store import AdapterStore
from gateway import api
from gateway.store.database import Database
from tests.gateway.api.installation import ADMIN_KEY, Installation, installed
from tests.gateway.feedback import stories
from tests.trainer import tiny

pytestmark = pytest.mark.timeout(300)


@dataclass(slots=True)
class Site:
    """A control plane on a socket, and `trainer` as a person beside it runs it."""

    here: Installation
    story: stories.Story
    url: str
    room: Path
    model: Path

    async def run(self, run: str, *more: str, key: str = ADMIN_KEY) -> Any:
        rows = tiny.write_rows(self.room / "rows.jsonl")
        given = {
            "base_model": tiny.NAME,
            "model_path": self.model,
            "run_dir": self.room / run,
            "lora.rank": 8,
            "training.max_steps": 2,
            "training.threads": 1,
            "publish.tenant": "acme",
            "publish.name": "support",
        }
        words = ["run", "--json", "--data", str(rows), *more]
        for name, value in given.items():
            words += ["--set", f"{name}={value}"] if not any(word.startswith(f"{name}=") for word in more) else []
        return await asyncio.to_thread(tiny.shell, *words, GATEWAY_URL=self.url, GATEWAY_KEY=key)

    async def publishes(self, run: str, *more: str, key: str = ADMIN_KEY) -> dict[str, Any]:
        done = await self.run(run, *more, key=key)
        assert done.returncode == 0, done.stderr
        await self.here.settle()
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@asynccontextmanager
async def _served(here: Installation, engine: dict[str, Any]) -> AsyncIterator[str]:
    async def engine_view() -> dict[str, Any]:
        return engine

    app = api.build(replace(here.rooms, engine_view=engine_view))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


@pytest.fixture
async def site(db: Database, tmp_path: Path, tiny_model: Path) -> AsyncIterator[Site]:
    story = await stories.begin(db)
    engine = {"base_model": tiny.NAME, "max_rank": 16, "ready": True, "resident": [], "kind": "fake"}
    async with installed(db, tmp_path) as here, _served(here, engine) as url:
        yield Site(here, story, url, tmp_path, tiny_model)


@pytest.mark.training
async def test_what_users_said_is_in_the_version_that_the_gateway_serves_next(site: Site):
    good, bad = await site.story.asked("ann"), await site.story.asked("bob")
    await site.story.said("helpful", True, good)
    wrong = await site.story.said("helpful", False, bad, correction="a better answer to bob")
    done = await site.publishes("round", "--alias", "support", "--set", "data.held_out_share=0")
    kept = [json.loads(line) for line in (site.room / "round/data/train.jsonl").read_text().splitlines()]
    live = {row["completion"]: row for row in kept if row.get("inference_id")}
    assert set(live) == {"an answer to ann", "a better answer to bob"}
    assert live["a better answer to bob"]["propensity"] == 0.5
    assert wrong in json.loads((site.room / "round/lineage.json").read_text())["feedback"]
    assert (done["ref"], done["examples"], done["feedback"]) == ("acme/support@1", 26, 2)
    stored = AdapterStore(str(site.room / "store")).open(AdapterRef.parse(done["ref"]))
    assert stored.digest == done["digest"] and stored.manifest.lineage.feedback == 2
    listed = await site.here.call("GET", "/tenants/acme/adapters")
    assert [(row["ref"], row["digest"]) for row in listed["data"]] == [(done["ref"], done["digest"])]


@pytest.mark.training
async def test_a_tenants_own_key_publishes_and_publishing_again_changes_nothing(site: Site):
    key = await site.here.key("acme", "admin")
    first = await site.publishes("one", key=key)
    assert await site.publishes("one", key=key) == first
    second = await site.publishes("two", "--set", "training.seed=1", "--set", f"publish.parent={first['ref']}", key=key)
    assert (first["ref"], second["ref"]) == ("acme/support@1", "acme/support@2")
    stored = AdapterStore(str(site.room / "store")).get(AdapterRef.parse(second["ref"]))
    assert stored.manifest.lineage.parent == first["ref"]


@pytest.mark.training
async def test_a_version_published_into_a_shared_store_is_registered(site: Site):
    done = await site.publishes("shared", "--store", str(site.room / "store"))
    listed = await site.here.call("GET", "/tenants/acme/adapters")
    assert [row["ref"] for row in listed["data"]] == [done["ref"]]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("lora.rank=32", "rank 32; the gateway's engine allows 16: set lora.rank to 16 or less"),
        ("base_model=org/other", f"the gateway serves {tiny.NAME}, but base_model is org/other: set base_model"),
    ],
)
@pytest.mark.training
async def test_what_the_engine_could_not_serve_is_refused_before_anything_is_read(site: Site, changed: str, said: str):
    done = await site.run("refused", "--set", changed)
    assert done.returncode == 1 and done.stderr.startswith(f"trainer: {said}")
    assert not (site.room / "refused").exists()


@pytest.mark.training
async def test_a_key_of_another_tenant_learns_nothing_and_publishes_nothing(site: Site):
    key = await site.here.key("globex", "admin")
    done = await site.run("foreign", "--alias", "support", key=key)
    assert done.returncode == 1 and "the gateway refuses: " in done.stderr and "check publish.tenant" in done.stderr
    done = await site.run("foreign-publication", key="tl-wrong")
    assert done.returncode == 1 and done.stderr.endswith("set GATEWAY_KEY to a valid key.\n")
