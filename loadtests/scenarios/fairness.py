"""One tenant at ten times its share of an engine that is too small for it: the others must not notice much."""

from __future__ import annotations

import numpy as np

from loadtests.arrivals import poisson
from loadtests.asks import Ask, chat
from loadtests.installation import Setup
from loadtests.samples import Problem, quantiles
from loadtests.stage import Claim, Knobs, Outcome, Run, Stage

ABOUT = "one tenant at ten times its share; the others' p99 with and without it"
SLOTS = 8
SERVICE = tuple(0.02 + 0.04 * n / 8 for n in range(9))
"""Seconds that answers take, each as often. Answers of one length that began together would end together for ever, and
whoever comes would wait for all of them: no engine's answers are like that."""
CAPACITY = SLOTS / (sum(SERVICE) / len(SERVICE))
"""Requests a second that the engine can do: 200."""
TENANTS = 5
OTHERS = range(len(SERVICE), TENANTS * len(SERVICE))
"""Which of the requests are not the greedy tenant's."""
QUIET = 0.5
"""What the others ask for, of their share."""
GREEDY = 10.0
WORSE = 1.5
DEFAULTS = Knobs(seconds=20, rate=CAPACITY)


def setup(knobs: Knobs) -> Setup:
    return Setup(engine="mock", workers=knobs.workers, mock=("--slots", str(SLOTS)))


def run(stage: Stage) -> Outcome:
    asks = []
    for n in range(TENANTS):
        key, model = stage.tenant(f"fair-{n}")
        group = "greedy tenant" if n == 0 else "the others"
        asks += [chat(model, key=key, group=group, wish=f"ttft={seconds:g}") for seconds in SERVICE]
    share = stage.knobs.rate / TENANTS
    without = _load(stage, asks, greedy=QUIET * share, others=QUIET * share)
    beside = _load(stage, asks, greedy=GREEDY * share, others=QUIET * share)
    outcome = stage.outcome(beside, asks)
    outcome.rows.append(stage.row(without, "the others without it", OTHERS))
    before, after = (_p99(run) for run in (without, beside))
    failed = stage.row(beside, "", OTHERS).problems
    outcome.claims = [
        Claim(
            f"the others' p99 within {WORSE} times",
            after <= WORSE * before,
            f"{1e3 * before:.0f} ms, {1e3 * after:.0f} ms beside it",
        ),
        Claim("none of the others' requests failed", not failed, str(failed or "none")),
    ]
    return outcome


def _load(stage: Stage, asks: list[Ask], *, greedy: float, others: float) -> Run:
    """Poisson at each tenant's own rate."""
    random, seconds = stage.random, stage.knobs.seconds
    drawn = [poisson(random, rate=greedy if n == 0 else others, seconds=seconds) for n in range(TENANTS)]
    times = np.concatenate(drawn)
    kinds = len(SERVICE)
    which = np.concatenate([n * kinds + random.integers(kinds, size=len(one)) for n, one in enumerate(drawn)])
    order = np.argsort(times, kind="stable")
    programs = stage.open_loop(asks, which[order].astype(np.int32), times[order], connections=4096)
    return stage.measure(programs, seconds=seconds)


def _p99(run: Run) -> float:
    samples = run.samples.of(OTHERS).since(1.0)
    took = (samples["end"] - samples["intended"])[samples["problem"] == Problem.NONE]
    return quantiles(took, 0.99)[0]
