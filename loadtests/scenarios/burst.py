"""Everybody at once: waves of requests at one moment on top of a quiet stream of others."""

from __future__ import annotations

from loadtests.arrivals import bursts, weighted
from loadtests.asks import chat
from loadtests.installation import Setup
from loadtests.samples import Problem, quantiles
from loadtests.stage import Knobs, Outcome, Stage, none_failed

ABOUT = "waves of 300 requests at one moment, every two seconds, on a quiet stream"
DEFAULTS = Knobs(seconds=20, rate=50)
WAVE = 300
EVERY = 2.0


def setup(knobs: Knobs) -> Setup:
    return Setup(engine=knobs.engine, workers=knobs.workers)


def run(stage: Stage) -> Outcome:
    knobs, random = stage.knobs, stage.random
    key, model = stage.tenant("burst")
    asks = [chat(model, key=key, user=f"user-{n}", group="unary") for n in range(20)]
    asks += [chat(model, key=key, user=f"user-{n}", group="stream", stream=True) for n in range(20)]
    times = bursts(random, size=WAVE, every=EVERY, seconds=knobs.seconds, base=knobs.rate)
    which = weighted(random, [1.0] * len(asks), len(times))
    run = stage.measure(stage.open_loop(asks, which, times), seconds=knobs.seconds)
    outcome = stage.outcome(run, asks)
    good = run.samples["problem"] == Problem.NONE
    took = (run.samples["end"] - run.samples["intended"])[good]
    outcome.figures["a wave is through after (E2E p99.9 over all)"] = f"{1e3 * quantiles(took, 0.999)[0]:.0f} ms"
    outcome.claims.append(none_failed(outcome.rows))
    return outcome
