"""A deliberately worse adapter is canaried on the real engine, breaches a guardrail and is rolled back by the rule.

    python -m loadtests.rollback

Nobody helps: users ask and say whether an answer is readable, and that is all. Their crowd asks before, during and
after, without a pause. Printed is how long it took from the look that found the breach to the adapter's last request.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from adapters.manifest import Lineage, Manifest
from adapters.store import AdapterStore
from loadtests.demo.gateway import DemoFailed, Gateway, running
from loadtests.engine.random_adapter import ALL_LINEAR, write_adapter
from loadtests.engine.stage import BASE_MODEL, MODEL, private_home

TENANT, ALIAS, METRIC = "acme", "support", "readable"
RANK, STRENGTH = 16, 3.0
"""Random weights of this strength make word salad of every answer."""
THINGS = ("apple", "book", "chair", "door", "engine", "flower", "garden", "house", "island", "jacket", "lamp", "rope")
MAX_TOKENS = 8
BURN_IN = 20
PLAN: dict[str, Any] = {
    "guardrails": [{"metric": METRIC, "margin": 0.1}, {"metric": "error_rate", "margin": 0.1}],
    "planned_units": 200,
    "burn_in": BURN_IN,
    "widen": "rule",
}
AFTER_SECONDS = 5.0
"""How long the crowd goes on after the roll back: nobody may meet the adapter any more."""
COMMON = frozenset(
    (
        *("a", "about", "and", "are", "as", "at", "be", "but", "by", "can", "do", "for", "from", "good", "have", "how"),
        *("i", "if", "in", "is", "it", "like", "make", "many", "more", "most", "not", "of", "often", "on", "one", "or"),
        *("people", "some", "that", "the", "their", "them", "there", "they", "thing", "things", "this", "to", "use"),
        *("used", "uses", "very", "was", "we", "what", "when", "which", "who", "will", "with", "you", "your"),
    )
)
WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was sent and answered (seconds since 1970), what served it, and what went wrong."""

    sent: float
    ended: float
    served: str
    readable: bool
    error: str | None = None


@dataclass(slots=True)
class Run:
    """What a run came to. Times are seconds since 1970, all of one machine's clock."""

    period: float
    coverage: float
    ref: str
    asked: list[Asked] = field(default_factory=list)
    began: float = 0.0
    found: float = 0.0
    committed: float = 0.0
    look: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)

    @property
    def on_adapter(self) -> list[Asked]:
        return [one for one in self.asked if one.served == self.ref]

    def figures(self) -> dict[str, Any]:
        """What a run is reported by; milliseconds unless said otherwise."""
        last_sent, last_ended = (max(getattr(one, name) for one in self.on_adapter) for name in ("sent", "ended"))
        later = [one for one in self.asked if one.sent > self.committed]
        return {
            "requests": len(self.asked),
            "failed": sum(one.error is not None for one in self.asked),
            "on_the_adapter": len(self.on_adapter),
            "canary_coverage": self.coverage,
            "evaluation_period_s": self.period,
            "from_the_start_to_the_breach_s": round(self.found - self.began, 1),
            "breach_to_commit": round((self.committed - self.found) * 1000),
            "breach_to_the_last_request_sent_to_it": round((last_sent - self.found) * 1000),
            "breach_to_its_last_answer": round((last_ended - self.found) * 1000),
            "requests_after_the_commit": len(later),
            "of_these_to_the_adapter": sum(one.served == self.ref for one in later),
        }


def readable(answer: str) -> bool:
    """Whether a person would call it words: every third at least is among the most common ones."""
    words = WORD.findall(answer.lower())
    return bool(words) and sum(word in COMMON for word in words) * 3 >= len(words)


def publish(gateway: Gateway, home: Path, model: Path) -> str:
    """Make the worse adapter and register it; its ref."""
    with tempfile.TemporaryDirectory() as room:
        made = write_adapter(Path(room) / "peft", model, seed=1, rank=RANK, strength=STRENGTH, targets=ALL_LINEAR)
        manifest = Manifest(
            base_model=BASE_MODEL,
            rank=RANK,
            alpha=RANK,
            lineage=Lineage(run_id="made-worse", dataset_digest="none"),
            created_at=datetime.now(UTC),
        )
        published = AdapterStore(str(home / "adapters")).publish(made, tenant=TENANT, name=ALIAS, manifest=manifest)
    gateway.call("POST", f"/tenants/{TENANT}/adapters", {"ref": str(published.ref)})
    return str(published.ref)


class Crowd:
    """Users who ask one question each, at most `at_once` of them at a time, and say whether they could read it."""

    def __init__(self, gateway: Gateway, key: str, run: Run, *, at_once: int) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=at_once)
        headers = {"authorization": f"Bearer {key}"}
        self._client = httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=120, limits=limits)
        self._run, self._at_once, self._numbers = run, at_once, itertools.count()
        self.over = False

    async def go(self) -> None:
        """Until it is over."""
        async with self._client, asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(self._one_after_another())

    async def _one_after_another(self) -> None:
        while not self.over:
            self._run.asked.append(await self._ask(next(self._numbers)))

    async def _ask(self, number: int) -> Asked:
        question = f"What do people do with a {THINGS[number % len(THINGS)]}?"
        messages = [{"role": "user", "content": question}]
        body = {"model": ALIAS, "messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0}
        sent = time.time()
        try:
            headers = {"x-targeting-key": f"user-{number}"}
            reply = (await self._client.post("/v1/chat/completions", json=body, headers=headers)).raise_for_status()
            ended, answer = time.time(), reply.json()
            fine = readable(answer["choices"][0]["message"]["content"] or "")
            said = {"inference_id": answer["id"], "metric": METRIC, "value": fine}
            (await self._client.post("/v1/feedback", json=said)).raise_for_status()
        except (httpx.HTTPError, KeyError, ValueError) as error:
            return Asked(sent, time.time(), "", readable=False, error=f"{type(error).__name__}: {error}")
        return Asked(sent, ended, reply.headers["x-adapter"], fine)


async def play(
    gateway: Gateway, home: Path, model: Path, run: Run, *, at_once: int, seconds: float, say: Callable[[str], None]
) -> None:
    """The whole story on a running gateway. Raises `DemoFailed` if nothing was rolled back within `seconds`."""
    gateway.tenant(TENANT, store_content=False)
    key = gateway.key(TENANT, ["inference", "feedback"])
    metric = {"name": METRIC, "kind": "boolean", "optimize": "max", "description": "a person can read the answer"}
    gateway.call("POST", f"/tenants/{TENANT}/metrics", metric, taken_ok=True)
    gateway.point(TENANT, ALIAS, {"base": (1.0, "base")})
    run.ref = await asyncio.to_thread(publish, gateway, home, model)
    crowd = Crowd(gateway, key, run, at_once=at_once)
    async with asyncio.TaskGroup() as group:
        group.create_task(crowd.go())
        try:
            experiment = await asyncio.to_thread(_begin, gateway, run)
            run.began = time.time()
            await asyncio.to_thread(_ended, gateway, experiment, run, run.began + seconds, say)
            await asyncio.sleep(AFTER_SECONDS)
        finally:
            crowd.over = True
    looks = gateway.call("GET", f"/experiments/{experiment}/looks")["data"]
    run.look = next(look for look in looks if look["word"] == "roll_back")
    run.found = datetime.fromisoformat(run.look["at"]).timestamp()
    rows = gateway.call("GET", f"/audit?tenant={TENANT}&limit=1000")["data"]
    run.audit = next(row for row in rows if row["action"] == "experiment.rollback" and row["subject"] == experiment)
    run.committed = datetime.fromisoformat(run.audit["at"]).timestamp()


def _begin(gateway: Gateway, run: Run) -> str:
    body = {
        "alias": ALIAS,
        "name": "is the new one any good",
        "candidates": [{"name": "worse", "weight": 1, "ref": run.ref}],
        "stage": "canary",
        "canary_coverage": run.coverage,
        "plan": PLAN,
    }
    return str(gateway.call("POST", f"/tenants/{TENANT}/experiments", body)["id"])


def _ended(gateway: Gateway, experiment: str, run: Run, give_up: float, say: Callable[[str], None]) -> None:
    while (found := gateway.call("GET", f"/experiments/{experiment}"))["status"] == "running":
        say(f"{len(run.asked)} asked, {len(run.on_adapter)} of them met the canary")
        if time.time() > give_up:
            raise DemoFailed(gateway.call("GET", f"/experiments/{experiment}/verdict")["sentence"])
        time.sleep(0.25)
    if found["stage"] != "rolled_back":
        raise DemoFailed(f"it ended as {found['stage']}: {found}")


def sentence(figures: dict[str, Any]) -> str:
    """From the breach to the last request on the adapter, for a person."""
    last = figures["breach_to_its_last_answer"]
    ended = f"had ended {-last} ms before" if last < 0 else f"ended {last} ms after it"
    return (
        f"The roll back came {figures['breach_to_commit']} ms after the look that found the breach. The adapter's last"
        f" answer {ended}; of {figures['requests_after_the_commit']} requests after the roll back it got"
        f" {figures['of_these_to_the_adapter']}."
    )


def failures(run: Run) -> list[str]:
    """Everything that must not happen and did."""
    found = [f"a request failed: {one.error}" for one in run.asked if one.error]
    if run.audit["actor"] != "rule":
        found.append(f"{run.audit['actor']} rolled it back, and not the rule")
    acknowledged = run.committed + run.period
    late = [one for one in run.on_adapter if one.sent > acknowledged]
    if late:
        found.append(f"{len(late)} requests were sent to the adapter more than a period after the roll back")
    return found


@contextmanager
def installed(
    home: Path, model: Path, period: float, engine: tuple[str, ...] = ("--engine", "vllm")
) -> Iterator[Gateway]:
    """A gateway that evaluates each `period` seconds."""
    settings = {"GATEWAY_EVALUATION_SECONDS": str(period)}
    with running(
        home, base_model=BASE_MODEL, model_path=model, say=lambda _: None, engine=engine, settings=settings
    ) as one:
        yield one


def main(arguments: list[str] | None = None) -> int:
    """Play it, print what it came to; exit status 1 if something happened that must not."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.rollback", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL, help="the model's directory (default: %(default)s)")
    parser.add_argument("--home", type=Path, help="the gateway's home (default: one that is removed afterwards)")
    parser.add_argument("--coverage", type=float, default=0.05, help="of the canary (default: %(default)s)")
    parser.add_argument("--period", type=float, default=5.0, help="seconds between evaluations (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=16, help="users waiting at a time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=600, help="patience (default: %(default)s)")
    told = parser.parse_args(arguments)
    run = Run(told.period, told.coverage, "")
    with private_home(told.home) as home:
        print("starting PostgreSQL, the gateway and vLLM (a minute)", file=sys.stderr, flush=True)
        with installed(home, told.model, told.period) as gateway:
            asyncio.run(play(gateway, home, told.model, run, at_once=told.at_once, seconds=told.seconds, say=_say))
    print(f"{run.look['sentence']}\nrolled back by: {run.audit['actor']}")
    print(json.dumps(run.figures(), indent=1))
    print(sentence(run.figures()))
    wrong = failures(run)
    print("\n".join(f"FAILED: {one}" for one in wrong) or "No request failed, and nobody helped.")
    return 1 if wrong else 0


def _say(sentence: str) -> None:
    if int(time.time()) % 10 == 0:
        print(f"{time.strftime('%H:%M:%S')} {sentence}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DemoFailed as failed:
        print(failed, file=sys.stderr)
        sys.exit(1)
