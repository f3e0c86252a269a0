"""Many users who do not know of each other: Poisson arrivals, half of them streams, on a sticky two-variant alias."""

from __future__ import annotations

from loadtests.arrivals import poisson, weighted
from loadtests.asks import chat
from loadtests.installation import Setup
from loadtests.stage import Knobs, Outcome, Stage, none_failed

ABOUT = "Poisson arrivals of one tenant's users, answers in one piece and streams"
DEFAULTS = Knobs(seconds=30, rate=300)
USERS = 40
STREAM = "tokens=30 itl=0.01"


def setup(knobs: Knobs) -> Setup:
    return Setup(engine=knobs.engine, workers=knobs.workers)


def run(stage: Stage) -> Outcome:
    knobs, random = stage.knobs, stage.random
    key, model = stage.tenant("steady")
    asks = [chat(model, key=key, user=f"user-{n}", group="unary") for n in range(USERS)]
    asks += [chat(model, key=key, user=f"user-{n}", group="stream", stream=True, wish=STREAM) for n in range(USERS)]
    times = poisson(random, rate=knobs.rate, seconds=knobs.seconds)
    which = weighted(random, [1.0] * len(asks), len(times))
    outcome = stage.outcome(stage.measure(stage.open_loop(asks, which, times), seconds=knobs.seconds), asks)
    outcome.claims.append(none_failed(outcome.rows))
    return outcome
