"""Many tenants with adapters of their own, a few loud and many rare (Zipf): each must find its adapter resident, or
have it loaded, whatever the loud ones do."""

from __future__ import annotations

import numpy as np

from loadtests.arrivals import poisson, zipf
from loadtests.asks import chat
from loadtests.installation import Setup
from loadtests.stage import Knobs, Outcome, Stage, none_failed

ABOUT = "40 adapters of 20 tenants, chosen by Zipf's law"
DEFAULTS = Knobs(seconds=30, rate=300)
TENANTS = 20
ADAPTERS = ("chat", "mail")
LOUD = 4


def setup(knobs: Knobs) -> Setup:
    return Setup(engine=knobs.engine, workers=knobs.workers)


def run(stage: Stage) -> Outcome:
    knobs, random = stage.knobs, stage.random
    asks = []
    for n in range(TENANTS):
        tenant = f"tenant-{n:02}"
        key = stage.gateway.tenant(tenant)
        for i, alias in enumerate(ADAPTERS):
            stage.say(f"adapter {2 * n + i + 1} of {TENANTS * len(ADAPTERS)}")
            version = stage.gateway.adapter(tenant, alias, seed=2 * n + i)
            stage.gateway.alias(tenant, alias, {"tuned": (1, version)})
            asks.append(chat(alias, key=key, group="loud tenants" if n < LOUD else "rare tenants", user=f"user-{n}"))
    times = poisson(random, rate=knobs.rate, seconds=knobs.seconds)
    which = zipf(random, kinds=len(asks), count=len(times))
    run = stage.measure(stage.open_loop(asks, which, times, names=True), seconds=knobs.seconds)
    outcome = stage.outcome(run, asks)
    outcome.figures["versions that served"] = len({int(n) for n in np.unique(run.samples["served"]) if n >= 0})
    outcome.claims.append(none_failed(outcome.rows))
    return outcome
