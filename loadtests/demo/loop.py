"""The whole loop on a real model: serve, train, compare, learn from feedback, train again, swap under live streams.

Everything goes over the gateway's HTTP interfaces and the trainer's command line, as it would for a user.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.demo import triage
from loadtests.demo.gateway import DemoFailed, Gateway, running
from loadtests.demo.progress import Step, step
from loadtests.demo.training import published_by, trainer
from loadtests.demo.users import METRIC, Asked, Streamed, Users

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TENANT, NEIGHBOUR, ALIAS = "acme", "globex", "support"
AT_ONCE = 12
"""Users waiting at once in the comparison: the two cores generate no faster beyond that."""
STREAMS = 24
COMPARED = 96
AFTERWARDS = 40
PLAN: dict[str, Any] = {
    "primary": METRIC,
    "guardrails": [{"metric": "error_rate", "margin": 0.2}],
    "planned_units": COMPARED,
    "burn_in": 30,
    "ship": "rule",
}
"""Fixed before the first look. Some 48 users an arm are few: nothing is said before 30 in each, and no smaller margin
than 20 points could be proven to hold with so few, though not one request fails."""
EVALUATION_SECONDS = 2
VERDICT_SECONDS = 60
"""How long the rule may take after the last answer."""


@dataclass(slots=True)
class Story:
    """What the loop leaves behind, for the report."""

    began: float = field(default_factory=time.monotonic)
    compared: list[Asked] = field(default_factory=list)
    neighbour: list[Asked] = field(default_factory=list)
    afterwards: list[Asked] = field(default_factory=list)
    streams: list[Streamed] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    experiment: dict[str, Any] = field(default_factory=dict)
    decided: dict[str, Any] = field(default_factory=dict)
    promotion: dict[str, Any] = field(default_factory=dict)
    published: list[dict[str, Any]] = field(default_factory=list)
    swapped: dict[str, float] = field(default_factory=dict)
    asked: float = 0.0
    acknowledged: float = 0.0
    feedback_rows: list[tuple[str, str]] = field(default_factory=list)


def run(home: Path, model_path: Path) -> Story:
    """The demo. A second run keeps the trained first version's run directory, and so is quicker."""
    shutil.rmtree(home / "gateway", ignore_errors=True)
    story = Story()
    with step("1  PostgreSQL, the gateway, and a real vLLM child") as now:
        settings = {"GATEWAY_EVALUATION_SECONDS": str(EVALUATION_SECONDS)}
        stack = running(home / "gateway", base_model=BASE_MODEL, model_path=model_path, say=now.say, settings=settings)
        gateway = stack.__enter__()
    try:
        _tell(gateway, story, home, model_path)
    finally:
        with step("   stopping"):
            stack.__exit__(None, None, None)
    return story


def _tell(gateway: Gateway, story: Story, home: Path, model_path: Path) -> None:
    with step(f"2  Two tenants: {TENANT} (keeps content, so that it can learn) and {NEIGHBOUR}"):
        keys = prepare(gateway)
    with step("3  Round 1: train on the written examples") as now:
        story.published.append(train(gateway, home / "runs" / "round-1", model_path, now))
    first = story.published[0]["ref"]
    with step(f"4  Compare: {COMPARED} users on base against {first}, half and half, {NEIGHBOUR} beside them") as now:
        asyncio.run(compare(gateway, story, keys, first, now))
    with step("5  Round 2: train on the examples and on what those users said") as now:
        shutil.rmtree(home / "runs" / "round-2", ignore_errors=True)
        story.published.append(train(gateway, home / "runs" / "round-2", model_path, now, parent=first))
    story.feedback_rows = feedback_behind(home / "runs" / "round-2")
    second = story.published[1]["ref"]
    with step(f"6  Swap {first} → {second} under {STREAMS} open streams") as now:
        asyncio.run(swap_under_streams(gateway, story, keys[TENANT], second, now))
    with step(f"7  {AFTERWARDS} users on {second}") as now:
        asyncio.run(ask_afterwards(gateway, story, keys[TENANT], now))


def prepare(gateway: Gateway) -> dict[str, str]:
    """Tenants, keys, the metric and an alias that serves the base model; safe to repeat. Returns a key for each."""
    keys = {}
    for tenant in (TENANT, NEIGHBOUR):
        gateway.tenant(tenant, store_content=tenant == TENANT)
        keys[tenant] = gateway.key(tenant, ["inference", "feedback"])
    metric = {"name": METRIC, "kind": "boolean", "optimize": "max", "description": "the ticket went to the right team"}
    gateway.call("POST", f"/tenants/{TENANT}/metrics", metric, taken_ok=True)
    if gateway.call("GET", f"/tenants/{TENANT}/aliases/{ALIAS}", absent_ok=True) is None:
        gateway.point(TENANT, ALIAS, {"base": (1, "base")})
    if gateway.call("GET", f"/tenants/{NEIGHBOUR}/aliases/assistant", absent_ok=True) is None:
        gateway.point(NEIGHBOUR, "assistant", {"base": (1, "base")})
    return keys


def train(gateway: Gateway, run_dir: Path, model_path: Path, now: Step, *, parent: str | None = None) -> dict[str, Any]:
    """`trainer run` in its own process, publishing through the gateway; returns its last line, a JSON object."""
    arguments = [
        *("run", str(Path(__file__).with_name("triage.yaml")), "--json"),
        *("--set", f"run_dir={run_dir}", "--set", f"model_path={model_path}"),
    ]
    if parent is not None:
        arguments += ["--set", f"data.gateway.alias={ALIAS}", "--set", f"publish.parent={parent}"]
    published = published_by(gateway, trainer(gateway, arguments, run_dir.parent / f"{run_dir.name}.log", now))
    now.note = f"{published['ref']} {published['digest'][:19]}…"
    return published


def feedback_behind(run_dir: Path) -> list[tuple[str, str]]:
    """(feedback id, inference id) of every row of the run's data that came from live feedback."""
    rows = [json.loads(line) for line in (run_dir / "data" / "train.jsonl").read_text().splitlines()]
    return [(feedback, row["inference_id"]) for row in rows for feedback in row.get("feedback_ids") or []]


async def compare(gateway: Gateway, story: Story, keys: dict[str, str], tuned: str, now: Step) -> None:
    """An experiment of base against `tuned` that ends by the rule; the neighbour's users ask meanwhile, and must notice
    nothing."""
    candidates = [{"name": "tuned", "weight": 1, "ref": tuned}]
    hypothesis = "What the desk wrote down, learnt, sends more tickets to the right team than the base model does."
    body = {
        "alias": ALIAS,
        "name": "is tuning worth it",
        "hypothesis": hypothesis,
        "candidates": candidates,
        "plan": PLAN,
    }
    experiment = await asyncio.to_thread(gateway.call, "POST", f"/tenants/{TENANT}/experiments", body)
    users, neighbours = (Users(gateway.url, keys[t], at_once=n) for t, n in ((TENANT, AT_ONCE), (NEIGHBOUR, 2)))
    count = _Counter(COMPARED, now)
    cases = triage.load("users")
    try:
        async with asyncio.TaskGroup() as crowd:
            ours = crowd.create_task(users.ask_all(cases[:COMPARED], ALIAS, feedback=True, done=count.one))
            theirs = crowd.create_task(neighbours.ask_all(cases[-8:], "assistant", feedback=False, done=lambda _: None))
    finally:
        await users.aclose()
        await neighbours.aclose()
    story.compared, story.neighbour = ours.result(), theirs.result()
    await asyncio.to_thread(decided, gateway, story, experiment["id"], now)
    now.note = f"{count.text()}; {story.experiment['stage']} by the rule"


def decided(gateway: Gateway, story: Story, experiment: str, now: Step) -> None:
    """Wait until the rule has ended the experiment, and read what it rests on. Raises `DemoFailed` if it does not."""
    now.say("waiting for the rule's verdict")
    give_up = time.monotonic() + VERDICT_SECONDS
    while (found := gateway.call("GET", f"/experiments/{experiment}"))["status"] == "running":
        if time.monotonic() > give_up:
            sentence = gateway.call("GET", f"/experiments/{experiment}/verdict")["sentence"]
            raise DemoFailed(f"the rule came to no verdict on {experiment}. {sentence}")
        time.sleep(0.5)
    story.experiment = found
    story.decided = gateway.call("GET", f"/experiments/{experiment}/verdict")["decided"]
    story.results = gateway.call("GET", f"/experiments/{experiment}/results?metric={METRIC}")
    done = gateway.call("GET", f"/audit?tenant={TENANT}&limit=1000")["data"]
    story.promotion = next((row for row in done if row["action"] == "experiment.promote"), {})


async def swap_under_streams(gateway: Gateway, story: Story, key: str, ref: str, now: Step) -> None:
    """Open streams on the first version, which the rule has promoted; promote `ref` in their midst; let them end."""
    promote = f"/tenants/{TENANT}/aliases/{ALIAS}/promote"
    first = story.published[0]["ref"]
    users, stop = Users(gateway.url, key, at_once=STREAMS), asyncio.Event()
    cases = triage.load("users")[COMPARED:]
    try:
        async with asyncio.TaskGroup() as crowd:
            streaming = crowd.create_task(users.stream_until(cases, ALIAS, at_once=STREAMS, stop=stop))
            now.say(f"{STREAMS} streams open on {first}")
            await asyncio.sleep(6)
            story.asked = time.monotonic()
            reply = await asyncio.to_thread(gateway.call, "POST", promote, {"ref": ref})
            story.acknowledged = time.monotonic()
            now.say(f"acknowledged after {reply['timings_ms']['total']:.0f} ms; the old streams end on {first}")
            await asyncio.sleep(4)
            stop.set()
    finally:
        await users.aclose()
    story.swapped = reply["timings_ms"]
    story.streams = streaming.result()
    now.note = f"{len(story.streams)} streams, {sum(s.error is not None for s in story.streams)} failed"


async def ask_afterwards(gateway: Gateway, story: Story, key: str, now: Step) -> None:
    """Users nobody has asked before judge the new version."""
    users, count = Users(gateway.url, key, at_once=AT_ONCE), _Counter(AFTERWARDS, now)
    try:
        cases = triage.load("heldout")[:AFTERWARDS]
        story.afterwards = await users.ask_all(cases, ALIAS, feedback=True, done=count.one)
    finally:
        await users.aclose()
    now.note = count.text()


class _Counter:
    """Counts answers as they come, for the progress display."""

    def __init__(self, expected: int, now: Step) -> None:
        self.expected, self.now = expected, now
        self.answered = self.good = self.failed = 0

    def one(self, asked: Asked) -> None:
        self.answered += 1
        self.good += asked.good
        self.failed += asked.error is not None
        self.now.say(f"waiting for answers · {self.text()}")

    def text(self) -> str:
        return f"{self.answered} of {self.expected} answered, {self.good} judged right, {self.failed} failed"
