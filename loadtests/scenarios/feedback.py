"""A flood of feedback: every judgement that was acknowledged is there when the experiment's results are read."""

from __future__ import annotations

import numpy as np

from loadtests.arrivals import poisson
from loadtests.asks import Ask, chat, post
from loadtests.installation import LoadTestFailed, Setup
from loadtests.samples import Problem
from loadtests.stage import Claim, Knobs, Outcome, Stage
from loadtests.traffic import Traffic

ABOUT = "judgements of answers at a high rate, then counted"
DEFAULTS = Knobs(seconds=20, rate=300)
METRIC = "helpful"
USERS = 200
CONNECTIONS = 8


def setup(knobs: Knobs) -> Setup:
    return Setup(engine=knobs.engine, workers=knobs.workers)


def run(stage: Stage) -> Outcome:
    knobs, random, gateway = stage.knobs, stage.random, stage.gateway
    key, model = stage.tenant("feedback")
    gateway.call("POST", "/tenants/feedback/metrics", {"name": METRIC, "kind": "boolean"}, taken_ok=True)
    body = {"alias": model, "name": "is it helpful", "metric": METRIC}
    experiment = gateway.call("POST", "/tenants/feedback/experiments", body)["id"]
    times = poisson(random, rate=knobs.rate, seconds=knobs.seconds)
    inferences = _inferences(stage, model, key, len(times))
    asks = [_judgement(key, inference, bool(random.random() < 0.7)) for inference in inferences]
    flood = stage.measure(
        stage.open_loop(asks, np.arange(len(asks), dtype=np.int32), times[: len(asks)], connections=256),
        seconds=knobs.seconds,
    )
    outcome = stage.outcome(flood, asks)
    acknowledged = int((flood.samples["problem"] == Problem.NONE).sum())
    results = gateway.call("GET", f"/experiments/{experiment}/results")
    counted = sum(variant["feedback"] for variant in results["variants"])
    outcome.figures["judgements"] = f"{acknowledged:,} acknowledged, {counted:,} counted"
    refused = flood.samples.problems()
    others = {name: count for name, count in refused.items() if name not in ("status 503", "status 429")}
    outcome.claims = [
        Claim("what was not taken was refused with a 503 or 429", not others, str(others or refused or "all taken")),
        Claim("what was acknowledged is there", counted == acknowledged, f"{counted:,} of {acknowledged:,}"),
    ]
    return outcome


def _inferences(stage: Stage, model: str, key: str, count: int) -> list[str]:
    """So many different answers' ids, from many users."""
    asks = tuple(chat(model, key=key, user=f"user-{n}") for n in range(USERS))
    which = np.arange(count, dtype=np.int32) % USERS
    plan = Traffic(stage.address, asks, which, np.zeros(count), connections=CONNECTIONS, ids=True, timeout=120)
    stage.say(f"asking for {count:,} answers to judge")
    ids = stage.measure([plan], seconds=1).samples.notes.get("ids", [])
    if len(ids) < count:
        raise LoadTestFailed(f"only {len(ids)} of {count} answers came")
    return ids


def _judgement(key: str, inference: str, value: bool) -> Ask:
    body = {"inference_id": inference, "metric": METRIC, "value": value, "idempotency_key": f"load-{inference}"}
    return Ask(post("/v1/feedback", body, key=key), "feedback")
