"""The rows of the comparison: drives one target in one way, and divides what it spent by what it did.

Targets take turns within a round (A B C, A B C), so that what disturbs the machine disturbs all alike; ratios are taken
within a round and their median over the rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from loadtests import crew
from loadtests.arrivals import poisson
from loadtests.asks import Ask, chat
from loadtests.crew import Say
from loadtests.peers.targets import Target
from loadtests.samples import Problem, quantiles
from loadtests.traffic import Traffic

USERS = 20
TOKENS = 50


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to drive a target: `connections` busy ones, or `rate` arrivals a second. `per_chunk`: CPU is divided by the
    chunks and not by the requests."""

    name: str
    stream: bool = False
    wish: str | None = None
    connections: int = 0
    rate: float = 0.0
    per_chunk: bool = False


UNARY_1 = Kind("unary, 1 connection", connections=1)
UNARY_32 = Kind("unary, 32 connections", connections=32)
BURST_1 = Kind("burst stream, 1 connection", stream=True, connections=1, per_chunk=True)
BURST_32 = Kind("burst stream, 32 connections", stream=True, connections=32, per_chunk=True)
PACED = Kind(
    "paced stream, 100 connections", stream=True, wish=f"tokens={TOKENS} itl=0.01", connections=100, per_chunk=True
)
OPEN = Kind("unary, 2,000 a second offered", rate=2000)
KINDS = (UNARY_1, UNARY_32, BURST_1, BURST_32, PACED, OPEN)


@dataclass(frozen=True, slots=True)
class Figure:
    """One target in one row of one round. CPU in microseconds per request or chunk (NaN for the mock), PostgreSQL's of
    it apart; times in milliseconds."""

    target: str
    kind: str
    round: int
    cpu: float
    database: float
    rate: float
    p50: float
    p99: float
    failed: int


def measure(target: Target, kind: Kind, *, turn: int, seconds: float, say: Say) -> Figure:
    """Drive one target for `seconds`."""
    asks = tuple(_asks(target, kind))
    if kind.rate:
        times = poisson(np.random.default_rng(turn), rate=kind.rate, seconds=seconds)
        which = (np.arange(len(times)) % len(asks)).astype(np.int32)
        plan = Traffic(target.address, asks, which, times, connections=512, timeout=20)
    else:
        which = np.arange(len(asks), dtype=np.int32)
        plan = Traffic(target.address, asks, which, seconds=seconds, connections=kind.connections)
    before = target.meter.look() if target.meter else None
    samples, _ = crew.run([plan], say=say)
    after = target.meter.look() if target.meter else None
    good = samples["problem"] == Problem.NONE
    done = int(good.sum())
    units = float(samples["tokens"].sum()) if kind.per_chunk else float(done)
    cpu = database = float("nan")
    if before is not None and after is not None:
        spent = {role: after.cpu[role] - before.cpu.get(role, 0.0) for role in after.cpu}
        database = 1e6 * spent.pop("postgres", 0.0) / max(units, 1)
        cpu = 1e6 * sum(spent.values()) / max(units, 1)
    p50, p99 = quantiles((samples["end"] - samples["intended"])[good], 0.5, 0.99)
    lasted = max(float(samples["end"].max(initial=0.0)), seconds)
    failed = int((~good).sum())
    return Figure(target.name, kind.name, turn, cpu, database, done / lasted, 1e3 * p50, 1e3 * p99, failed)


def _asks(target: Target, kind: Kind) -> list[Ask]:
    return [
        chat(target.model, key=target.key, user=f"user-{n}", stream=kind.stream, wish=kind.wish) for n in range(USERS)
    ]


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the rounds; `ratio` is CPU over the yardstick's in the same round (NaN without one)."""

    cpu: float
    database: float
    rate: float
    p50: float
    p99: float
    failed: int
    ratio: float


def summary(figures: Sequence[Figure], target: str, kind: Kind, *, yardstick: str) -> Summary | None:
    """What the rounds say of one target in one row; None if it was left out."""
    mine = [figure for figure in figures if figure.target == target and figure.kind == kind.name]
    if not mine:
        return None
    base = {one.round: one.cpu for one in figures if one.target == yardstick and one.kind == kind.name}
    ratios = [one.cpu / base[one.round] for one in mine if base.get(one.round)]
    columns = {name: median(getattr(one, name) for one in mine) for name in ("cpu", "database", "rate", "p50", "p99")}
    return Summary(failed=sum(one.failed for one in mine), ratio=median(ratios) if ratios else float("nan"), **columns)
