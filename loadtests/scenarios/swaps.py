"""A promote storm under streams: an alias moves from version to version several times a second while it is streamed
from. A stream ends on the version that it began with, and nobody fails."""

from __future__ import annotations

import time

import numpy as np

from loadtests.arrivals import poisson, weighted
from loadtests.asks import chat
from loadtests.installation import Setup
from loadtests.samples import Problem, quantiles
from loadtests.stage import Claim, Knobs, Outcome, Stage, none_failed

ABOUT = "promotions several times a second under open streams"
DEFAULTS = Knobs(seconds=20, rate=40)
VERSIONS = 6
PAUSE = 0.25
STREAM = "tokens=80 itl=0.025"


def setup(knobs: Knobs) -> Setup:
    return Setup(engine=knobs.engine, workers=knobs.workers)


def run(stage: Stage) -> Outcome:
    knobs, random = stage.knobs, stage.random
    gateway = stage.gateway
    key = gateway.tenant("swaps")
    versions = [gateway.adapter("swaps", "support", seed=n) for n in range(VERSIONS)]
    gateway.alias("swaps", "support", {"tuned": (1, versions[0])})
    other_key, other_model = stage.tenant("bystander")
    asks = [
        chat("support", key=key, stream=True, wish=STREAM, max_tokens=200, group="swapped alias"),
        chat(other_model, key=other_key, stream=True, wish=STREAM, max_tokens=200, group="other tenant"),
    ]
    took: list[tuple[float, float]] = []

    def storm(start: float) -> None:
        time.sleep(max(0.0, start + 2 - time.monotonic()))
        while (began := time.monotonic()) < start + knobs.seconds:
            version = versions[(len(took) + 1) % VERSIONS]
            gateway.call("POST", "/tenants/swaps/aliases/support/promote", {"ref": version})
            took.append((began - start, time.monotonic() - start))
            time.sleep(PAUSE)

    times = poisson(random, rate=knobs.rate, seconds=knobs.seconds)
    which = weighted(random, [1.0, 1.0], len(times))
    run = stage.measure(
        stage.open_loop(asks, which, times, names=True, timeout=60), seconds=knobs.seconds, during=storm
    )
    outcome = stage.outcome(run, asks)
    _figures(outcome, took)
    changed = int((run.samples["problem"] == Problem.CHANGED).sum())
    served = len({int(n) for n in np.unique(run.samples["served"][run.samples["ask"] == 0]) if n >= 0})
    outcome.claims = [
        none_failed(outcome.rows, of="stream"),
        Claim("no stream changed its version", changed == 0, f"{changed} of {len(run.samples)}"),
        Claim("every version was served", served == VERSIONS, f"{served} of {VERSIONS}"),
    ]
    return outcome


def _figures(outcome: Outcome, took: list[tuple[float, float]]) -> None:
    """How long promotions took, and what the other tenant's streams noticed of them."""
    run = outcome.run
    p50, p99 = quantiles(np.array([end - begin for begin, end in took]), 0.5, 0.99)
    outcome.figures["promotions"] = f"{len(took)}, acknowledged after p50 {1e3 * p50:.0f} ms, p99 {1e3 * p99:.0f} ms"
    mine = run.samples["gap_ask"] == 1
    at, gap = run.samples["gap_at"][mine], run.samples["gap"][mine]
    swapping = np.zeros(len(at), dtype=bool)
    for begin, end in took:
        swapping |= (at >= begin) & (at - gap <= end)
    during, quiet = quantiles(gap[swapping], 0.99)[0], quantiles(gap[~swapping], 0.99)[0]
    outcome.figures["the other tenant's ITL p99"] = f"{1e3 * during:.1f} ms in a promotion, {1e3 * quiet:.1f} ms else"
