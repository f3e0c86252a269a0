"""The story: supervised → thumbs → KTO, and its poisoned twin → preferences → DPO, each published through the gate.

Every step is remembered in `HOME/steps`, every run is a run directory in `HOME/runs`, and the gateway's own home is
kept: started again, the story goes on where it was. Versions are served only as the gate allows. What decides is in the
configs beside this page and was found on train.csv alone (docs/training.md); test.csv is for the gate.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtests.banking import users
from loadtests.banking.crowd import METRICS, POISONED, THUMBS, Crowd, Record
from loadtests.banking.questions import NoQuestions, Plan, Pools
from loadtests.demo.gateway import DemoFailed, Gateway, running
from loadtests.demo.loop import BASE_MODEL
from loadtests.demo.progress import Step, step
from loadtests.demo.training import published_by, trainer

TENANT, ALIAS = "bank", "intents"
BASE = "base"
Page = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a story is told: its directory, the base model's, its questions and how many of them."""

    home: Path
    model: Path
    pools: Pools
    plan: Plan

    def rows(self, pool: str) -> Path:
        return self.home / "rows" / f"{pool}.jsonl"

    def remembered(self, name: str, write: Callable[[], Page]) -> Page:
        """What `write` returned the first time; a kill before its end means that it is done again."""
        path = self.home / "steps" / f"{name}.json"
        if path.exists():
            page: Page = json.loads(path.read_text("utf-8"))
            return page | {"remembered": True}
        page = write()
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(page, indent=1) + "\n", "utf-8")
        draft.replace(path)
        return page


def tell(place: Place, data: Path) -> dict[str, Page]:
    """The whole story, or what is left of it; returns its pages by name. Raises `DemoFailed` and `NoQuestions`."""
    _same_story(place, data)
    for pool in ("written", "checked", "test"):
        place.pools.save(pool, place.home / "rows")
    (place.home / "runs").mkdir(exist_ok=True)
    with step("1  PostgreSQL, the gateway, and a real vLLM child") as now:
        stack = running(place.home / "gateway", base_model=BASE_MODEL, model_path=place.model, say=now.say)
        gateway = stack.__enter__()
    try:
        return _pages(gateway, place)
    finally:
        with step("   stopping"):
            stack.__exit__(None, None, None)


def _pages(gateway: Gateway, place: Place) -> dict[str, Page]:
    pages: dict[str, Page] = {}
    key = prepare(gateway)
    rows = f"{len(place.pools.written)} written examples"
    pages["sft"] = _round(gateway, place, f"2  SFT on {rows}; the gate against the base", "sft")
    if pages["sft"]["verdict"] != "accepted":
        raise DemoFailed(
            f"the first round was not accepted, so there is nothing to go on from: {pages['sft']['reason']}"
        )
    first = serve(gateway, pages["sft"], BASE)
    pages["thumbs"] = _asked(gateway, place, key, "thumbs", f"3  Thumbs: customers on {BASE} against {first}")
    pages["plan"] = _planned(gateway, place, "   what the planner says of it", THUMBS)
    after = ("--set", f"training.start_from={first}", "--set", f"gate.incumbent={first}")
    thumbs = (*after, "--set", f"data.gateway.metric={THUMBS}")
    poisoned = (*after, "--set", f"data.gateway.metric={POISONED}")
    pages["kto"] = _round(gateway, place, f"4  KTO on the thumbs; the gate against {first}", "kto", *thumbs)
    pages["poisoned"] = _round(
        gateway, place, "5  The same round, poisoned by three customers", "kto", *poisoned, name="poisoned"
    )
    second = serve(gateway, pages["kto"], first)
    pages["pairs"] = _asked(gateway, place, key, "pairs", f"6  Preferences between two answers of {second}")
    since = ("--set", f"data.gateway.since={pages['pairs']['began']}")
    incumbent = ("--set", f"training.start_from={second}", "--set", f"gate.incumbent={second}")
    title = f"7  DPO on the preferences and corrections; the gate against {second}"
    pages["dpo"] = _round(gateway, place, title, "dpo", *incumbent, *since)
    serve(gateway, pages["dpo"], second)
    return pages


def prepare(gateway: Gateway) -> str:
    """Tenant, metrics and an alias that serves the base; safe to repeat. Returns a key for the customers."""
    gateway.tenant(TENANT, store_content=True)
    for name, kind in METRICS.items():
        body = {"name": name, "kind": kind, "optimize": "max"}
        gateway.call("POST", f"/tenants/{TENANT}/metrics", body, taken_ok=True)
    if gateway.call("GET", f"/tenants/{TENANT}/aliases/{ALIAS}", absent_ok=True) is None:
        gateway.point(TENANT, ALIAS, {"before": (1, BASE)})
    return gateway.key(TENANT, ["inference", "feedback"])


def serve(gateway: Gateway, page: Page, before: str) -> str:
    """Nine in ten customers get the page's version if the gate accepted it, the others what was served before."""
    if page["verdict"] != "accepted":
        return before
    gateway.point(TENANT, ALIAS, {"before": (1, before), "now": (9, page["ref"])})
    return str(page["ref"])


def _round(gateway: Gateway, place: Place, title: str, recipe: str, *settings: str, name: str | None = None) -> Page:
    """One `trainer run` with the recipe's config: trained, judged by the gate, published."""
    name = name or recipe
    with step(title) as now:
        page = place.remembered(name, lambda: _run(gateway, place, recipe, name, settings, now))
        now.note = f"{page['ref']} {page['verdict']}: {page['reason']}"
    return page


def _run(gateway: Gateway, place: Place, recipe: str, name: str, settings: tuple[str, ...], now: Step) -> Page:
    began = time.monotonic()
    arguments = ["run", str(Path(__file__).with_name(f"{recipe}.yaml")), "--json"]
    paths = {"run_dir": place.home / "runs" / name, "model_path": place.model, "data.test": place.rows("test")}
    if recipe == "sft":
        paths |= {"data.train": place.rows("written"), "data.held_out": place.rows("checked")}
    for key, path in paths.items():
        arguments += ["--set", f"{key}={path}"]
    last = trainer(gateway, [*arguments, *settings], place.home / "runs" / f"{name}.log", now)
    published = published_by(gateway, last)
    gate = published["manifest"]["gate"]
    told = {key: gate[key] for key in ("verdict", "reason", "compared_with", "figures")}
    kept = {key: value for key, value in published.items() if key != "manifest"}
    return {**kept, **told, "lineage": published["manifest"]["lineage"], "wall_seconds": time.monotonic() - began}


def _asked(gateway: Gateway, place: Place, key: str, name: str, title: str) -> Page:
    """A round of live traffic: every customer of the pool asks and says what they think."""
    turns = users.turns(getattr(place.pools, name), place.plan, name)
    with step(title) as now:
        page = place.remembered(name, lambda: asyncio.run(_crowd(gateway, place, key, name, turns, now)))
        now.note = page["note"]
    return page


async def _crowd(gateway: Gateway, place: Place, key: str, name: str, turns: list[users.Turn], now: Step) -> Page:
    began = place.remembered(f"{name}-began", lambda: {"at": _now()})["at"]
    crowd = Crowd(gateway.url, key, ALIAS, place.pools)
    record = Record(place.home / f"{name}.jsonl")
    try:
        lines = await (crowd.judge if name == "thumbs" else crowd.compare)(turns, record, now.say)
        if name == "thumbs":
            tuned = [line for line in lines if line["adapter"] != BASE]
            thumbs = users.poisoned(tuned, place.plan.seed)
            await crowd.poison(tuned, thumbs, Record(place.home / "poisoned.jsonl"))
    finally:
        await crowd.aclose()
    await asyncio.sleep(1.5)  # the recorder writes in batches, at most a second apart
    return {"began": began, **(judged(lines) if name == "thumbs" else compared(lines))}


def judged(lines: list[dict[str, Any]]) -> Page:
    """What a round of thumbs came to, by version."""
    arms: dict[str, Page] = {}
    for line in lines:
        arm = arms.setdefault(line["adapter"], {"answers": 0, "right": 0, "up": 0})
        arm["answers"] += 1
        arm["right"] += line["right"]
        arm["up"] += line["up"]
    rates = ", ".join(f"{ref} right {arm['right']} of {arm['answers']}" for ref, arm in sorted(arms.items()))
    return {"arms": arms, "thumbs": len(lines), "note": f"{len(lines)} thumbs; {rates}"}


def compared(lines: list[dict[str, Any]]) -> Page:
    """What a round of preferences came to."""
    preferred = sum(line["preferred"] is not None for line in lines)
    corrected = sum(line["corrected"] for line in lines)
    note = f"{len(lines)} pairs: {preferred} preferences, {corrected} corrections"
    return {"pairs": len(lines), "preferences": preferred, "corrections": corrected, "note": note}


def _planned(gateway: Gateway, place: Place, title: str, metric: str) -> Page:
    """What `trainer plan` says of the feedback at hand."""

    def ask() -> Page:
        log = place.home / "runs" / "plan.log"
        where = ("--tenant", TENANT, "--alias", ALIAS, "--metric", metric)
        trainer(gateway, ["plan", *where], log, now)
        return {"text": log.read_text("utf-8")}

    with step(title) as now:
        return place.remembered("plan", ask)


def _same_story(place: Place, data: Path) -> None:
    """Refuse a home where another story was begun. Raises `NoQuestions`."""
    digests = {name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in ("train.csv", "test.csv")}
    about = {"plan": asdict(place.plan), "data": digests}
    path = place.home / "story.json"
    if path.exists() and json.loads(path.read_text("utf-8")) != about:
        raise NoQuestions(
            f"{place.home} holds a story of other data or another size: name another --home, or remove it"
        )
    place.home.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
