"""Thousands of streams open at once, each slow: what one costs in memory, and whether the event loop keeps up; then the
same with a part of the clients reading slowly or not at all."""

from __future__ import annotations

import numpy as np

from loadtests.arrivals import even, weighted
from loadtests.asks import Ask, chat
from loadtests.installation import Setup
from loadtests.stage import Claim, Knobs, Outcome, Run, Stage, none_failed

ABOUT = "2,000 concurrent streams, a chunk each 200 ms, on one worker; then with slow readers among them"
ITL = 0.2
TOKENS = 50
LASTS = ITL * TOKENS
DEFAULTS = Knobs(seconds=25, rate=2000 / LASTS, clients=2)
WISH = f"tokens={TOKENS} itl={ITL}"
WIDE = f"tokens={TOKENS} itl={ITL} width=4000"
"""200 kB in all, more than a small window and the sender's socket hold: what is unread stays with the server."""
LAG = 0.05


def setup(knobs: Knobs) -> Setup:
    return Setup(engine=knobs.engine, workers=knobs.workers)


def run(stage: Stage) -> Outcome:
    knobs = stage.knobs
    key, model = stage.tenant("streams")
    plain = [chat(model, key=key, user=f"user-{n}", stream=True, wish=WISH, group="stream") for n in range(20)]
    fast = _open(stage, plain, [1.0] * len(plain))
    slow = [
        chat(model, key=key, stream=True, wish=WIDE, group="wide, fast reader"),
        chat(model, key=key, stream=True, wish=WIDE, group="wide, slow reader", reads="slow"),
        chat(model, key=key, stream=True, wish=WIDE, group="wide, never read", reads="never", held=LASTS),
    ]
    mixed_asks = [*plain, *slow]
    mixed = _open(stage, mixed_asks, [0.8 / len(plain)] * len(plain) + [0.1, 0.05, 0.05])
    outcome = stage.outcome(fast, plain, warm=LASTS)
    beside = stage.outcome(mixed, mixed_asks, warm=LASTS)
    outcome.rows += beside.rows
    open_at_once = knobs.rate * LASTS
    outcome.figures["open at once"] = f"{_most_open(fast):,} ({open_at_once:,.0f} offered)"
    for name, one in (("all reading", fast), ("a tenth slow or not reading", mixed)):
        outcome.figures[f"memory per open stream, {name}"] = _memory(one)
        if one.cost.lag is not None:
            outcome.figures[f"event-loop lag p99, {name}"] = f"{1e3 * one.cost.lag[1]:.1f} ms"
    outcome.claims = [none_failed(outcome.rows, of="stream")]
    if fast.cost.lag is not None:
        held = fast.cost.lag[1] < LAG
        outcome.claims.append(Claim("event-loop lag p99 < 50 ms", held, f"{1e3 * fast.cost.lag[1]:.1f} ms"))
    most = _most_open(fast)
    outcome.claims.append(Claim("so many were open", most >= 0.95 * open_at_once, f"{most:,} of {open_at_once:,.0f}"))
    return outcome


def _open(stage: Stage, asks: list[Ask], weights: list[float]) -> Run:
    """As many new streams a second as end: after `LASTS` seconds their number is level."""
    knobs = stage.knobs
    times = even(rate=knobs.rate, seconds=knobs.seconds)
    which = weighted(stage.random, weights, len(times))
    programs = stage.open_loop(asks, which, times, connections=20_000, timeout=4 * LASTS)
    return stage.measure(programs, seconds=knobs.seconds)


def _most_open(run: Run) -> int:
    """The largest number of streams under way at one moment."""
    begun, ended = np.sort(run.samples["sent"]), np.sort(run.samples["end"])
    moments = np.arange(0, run.seconds, 0.1)
    return int((np.searchsorted(begun, moments) - np.searchsorted(ended, moments)).max())


def _memory(run: Run) -> str:
    """What the workers grew by, over the streams that were open. An upper bound: caches grow along."""
    cost = run.cost
    if "worker" not in cost.rss_most:
        return "not measured"
    grown = cost.rss_most["worker"] - cost.rss_first["worker"]
    return f"{grown / max(_most_open(run), 1) / 1024:.1f} KiB ({grown / 2**20:.0f} MiB in all)"
