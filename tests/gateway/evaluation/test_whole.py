"""`gateway serve` with two workers and the fake engine: experiments that end by the rule, with nobody's help."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.store import AdapterStore
from gateway.settings import Settings
from tests.adapters import sample
from tests.gateway.evaluation.receiver import SECRET, Receiver
from tests.gateway.test_supervisor import Serving, start, until

pytestmark = [pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(120)]

PERIOD = 1.5


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class House:
    """A gateway, an adapter of acme's, and where its news go."""

    serving: Serving
    port: int
    ref: str

    def call(self, method: str, path: str, body: object = None) -> Any:
        reply = self.serving.admin(method, path, body)
        assert reply.is_success, reply.text
        return reply.json()

    def start(self, alias: str, **plan: Any) -> str:
        """An experiment on a new alias: the base model against the adapter. Its id."""
        self.call("PUT", f"/tenants/acme/aliases/{alias}", {"variants": [{"name": "base", "weight": 1, "ref": "base"}]})
        usual = {"primary": "helpful", "planned_units": 200, "burn_in": 30, "ship": "rule"}
        body = {
            "alias": alias,
            "name": alias,
            "candidates": [{"name": "tuned", "weight": 1, "ref": self.ref}],
            "plan": {**usual, **plan},
        }
        return str(self.call("POST", "/tenants/acme/experiments", body)["id"])

    def stage(self, experiment: str) -> str:
        return str(self.call("GET", f"/experiments/{experiment}")["stage"])

    def faults(self, **switches: Any) -> None:
        uds = httpx.HTTPTransport(uds=str(Settings(home=self.serving.home).run_dir / "engine.sock"))
        with httpx.Client(transport=uds, base_url="http://engine") as engine:
            engine.post("/fake/faults", json=switches).raise_for_status()

    def evaluating(self) -> list[int]:
        """The processes that began to go round, in their order."""
        lines = (self.serving.home / "serve.log").read_text().splitlines()
        said = [json.loads(line) for line in lines if '"evaluating"' in line]
        return [one["pid"] for one in said]

    def audited(self, experiment: str, action: str) -> dict[str, Any]:
        rows = self.call("GET", "/audit?tenant=acme&limit=200")["data"]
        (found,) = [row for row in rows if (row["subject"], row["action"]) == (experiment, action)]
        return dict(found)


@dataclass
class Crowd:
    """Users who ask and judge until they are told to stop. `good` are the chances that an answer pleases."""

    house: House
    alias: str
    good: dict[str, float]
    over: bool = False
    asked: list[tuple[float, str, int]] = field(default_factory=list)
    """When each request was sent, what it was assigned to, and its status."""

    async def go(self, at_once: int = 6) -> None:
        headers = {"authorization": f"Bearer {self.house.serving.key}"}
        numbers = itertools.count()
        async with httpx.AsyncClient(base_url=self.house.serving.url, headers=headers, timeout=30) as client:

            async def one_after_another() -> None:
                while not self.over:
                    await self.one(client, next(numbers))
                    await asyncio.sleep(0.02)

            await asyncio.gather(*(one_after_another() for _ in range(at_once)))

    async def one(self, client: httpx.AsyncClient, number: int) -> None:
        body = {"model": self.alias, "messages": [{"role": "user", "content": f"question {number}"}], "max_tokens": 4}
        sent = time.monotonic()
        reply = await client.post("/v1/chat/completions", json=body, headers={"x-targeting-key": f"user-{number}"})
        variant = reply.headers.get("x-variant", "")
        self.asked.append((sent, variant, reply.status_code))
        if reply.status_code == 200:
            pleased = random.Random(f"{self.alias}-{number}").random() < self.good.get(variant, 0.5)
            said = {"inference_id": reply.json()["id"], "metric": "helpful", "value": pleased}
            await client.post("/v1/feedback", json=said)

    async def until(self, look: Any, seconds: float = 45) -> Any:
        """Go on asking until `look` finds something; then a second more."""
        async with asyncio.TaskGroup() as group:
            crowd = group.create_task(self.go())
            found = await asyncio.to_thread(until, look, seconds)
            await asyncio.sleep(1)
            self.over = True
            await crowd
        return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home, port = tmp_path_factory.mktemp("evaluation"), free_port()
    settings = {
        "GATEWAY_BASE_MODEL": sample.BASE_MODEL,
        "GATEWAY_EVALUATION_SECONDS": str(PERIOD),
        "GATEWAY_WEBHOOK__URL": f"http://127.0.0.1:{port}/hooks",
        "GATEWAY_WEBHOOK__SECRET": SECRET,
    }
    with start(home, "--workers", "2", **settings) as serving:
        assert serving.admin("POST", "/tenants/acme/metrics", {"name": "helpful", "kind": "boolean"}).is_success
        yield House(serving, port, published(serving, home))


def published(serving: Serving, home: Path) -> str:
    made = sample.write_adapter(home / "made")
    ref = AdapterStore(str(home / "adapters")).publish(made, tenant="acme", name="support", manifest=sample.manifest())
    assert serving.admin("POST", "/tenants/acme/adapters", {"ref": str(ref.ref)}).is_success
    return str(ref.ref)


async def test_a_candidate_that_fails_is_rolled_back_within_a_period_audited_and_told(house: House) -> None:
    errors = [{"metric": "error_rate", "margin": 0.05}]
    worse = house.start("worse", guardrails=errors)
    house.faults(only=[house.ref], fail_requests=10**9)
    crowd = Crowd(house, "worse", {})
    with Receiver(house.port).listening() as receiver:
        (told,) = await crowd.until(lambda: receiver.of("experiment.stage", "rolled_back"))
        acknowledged = receiver.at[-1]
    house.faults(fail_requests=0, only=[])
    assert told["experiment"] == worse and told["by"] == "rule" and "error_rate" in told["why"]
    assert told["figures"]["guardrail"] == "error_rate" and told["figures"]["word"] == "roll_back"
    later = [(variant, status) for sent, variant, status in crowd.asked if sent > acknowledged]
    assert later and {variant for variant, _ in later} == {"base"} and {status for _, status in later} == {200}

    row = house.audited(worse, "experiment.rollback")
    assert row["actor"] == "rule" and row["detail"]["figures"]["units"]["tuned"] >= 30
    looks = house.call("GET", f"/experiments/{worse}/looks")["data"]
    found = next(look["at"] for look in looks if look["word"] == "roll_back")
    assert found < row["at"], "the look that found it is in the history"
    assert (seconds(row["at"]) - seconds(found)) < PERIOD


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def test_a_better_candidate_is_promoted_by_the_rule(house: House) -> None:
    better = house.start("better", guardrails=[{"metric": "error_rate", "margin": 0.2}])
    crowd = Crowd(house, "better", {"base": 0.15, "tuned": 0.9})
    await crowd.until(lambda: house.stage(better) == "promoted")
    alias = house.call("GET", "/tenants/acme/aliases/better")
    assert [variant["ref"] for variant in alias["variants"]] == [house.ref]
    assert {status for _, _, status in crowd.asked} == {200}
    assert house.audited(better, "experiment.promote")["detail"]["figures"]["word"] == "ship"


async def test_a_killed_evaluator_is_replaced_and_its_news_reach_a_receiver_that_was_down(house: House) -> None:
    (evaluator,) = house.evaluating()[-1:]
    workers = {worker.pid for worker in house.serving.children("gateway.worker")}
    assert evaluator in workers and len(set(house.evaluating())) == 1, "one of the two goes round"
    os.kill(evaluator, signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: house.evaluating()[-1] != evaluator, 10)
    assert time.monotonic() - killed < 4 * PERIOD + 1

    worse = house.start("later", guardrails=[{"metric": "error_rate", "margin": 0.05}])
    house.faults(only=[house.ref], fail_requests=10**9)
    await Crowd(house, "later", {}).until(lambda: house.stage(worse) == "rolled_back")
    house.faults(fail_requests=0, only=[])
    with Receiver(house.port).listening() as receiver:
        until(lambda: [one for one in receiver.of("experiment.stage", "rolled_back") if one["experiment"] == worse], 30)
        assert len(receiver.ids) == len(set(receiver.ids))
