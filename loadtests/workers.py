"""`python -m loadtests.workers`: how much more two workers do than one.

On a machine with few cores the load generator would take the second worker's core. So each worker gets the same fixed
share of a core (see `quota.py`), small enough that the machine is never full, and what is compared is the throughput at
saturation. What that leaves out: caches and memory that busy cores share. What it shows: whether connections are spread
evenly, and whether workers wait for each other (the database, shared limits).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median
from threading import Timer

import numpy as np
import psutil

from loadtests import crew, report
from loadtests.asks import Ask, chat
from loadtests.crew import CrewFailed
from loadtests.descriptors import raise_limit
from loadtests.installation import Installation, LoadTestFailed, Setup, end_on_sigterm, installed
from loadtests.meter import Meter
from loadtests.progress import Progress
from loadtests.quota import limited
from loadtests.samples import Problem
from loadtests.traffic import Traffic

WARM = 1.0
ENGINE_SECONDS = 0.05
"""Of each answer: a connection then keeps a worker busy for a small part of the time only, so that a worker with few
connections is idle, as it would be in life, and an uneven spread costs what it costs."""
USERS = 32


@dataclass(frozen=True, slots=True)
class Figure:
    """`workers` of them did `rate` requests a second on `cpu` µs each; `spread` is their connections, `busy` the part
    of their share of CPU that they used (1: saturated)."""

    workers: int
    round: int
    rate: float
    cpu: float
    spread: tuple[int, ...]
    busy: float
    failed: int


@dataclass(frozen=True, slots=True)
class Subject:
    """One installation with so many workers."""

    workers: int
    gateway: Installation
    asks: tuple[Ask, ...]

    def pids(self) -> list[int]:
        assert self.gateway.pid is not None
        children = psutil.Process(self.gateway.pid).children(recursive=True)
        return [child.pid for child in children if "gateway.worker" in " ".join(child.cmdline())]


def measure(subject: Subject, *, turn: int, seconds: float, share: float, connections: int, say: crew.Say) -> Figure:
    """Saturate one installation."""
    which = np.arange(len(subject.asks), dtype=np.int32)
    plan = Traffic(subject.gateway.address, subject.asks, which, seconds=seconds, connections=connections, timeout=60)
    pids, port = subject.pids(), subject.gateway.address.port
    assert subject.gateway.pid is not None
    meter = Meter(subject.gateway.pid)
    spread: list[int] = []
    with limited(pids, share):
        counting = Timer(seconds / 2 + 1, lambda: spread.extend(_connections(pid, port) for pid in pids))
        before = meter.look()
        counting.start()
        samples, _ = crew.run([plan], say=say)
        counting.join()
        after = meter.look()
    good = samples["problem"] == Problem.NONE
    done = int((good & (samples["end"] > WARM) & (samples["end"] <= seconds)).sum())
    spent = after.cpu["worker"] - before.cpu["worker"]
    busy = spent / (share * len(pids) * seconds)
    cpu = 1e6 * spent / max(int(good.sum()), 1)
    rate = done / (seconds - WARM)
    return Figure(subject.workers, turn, rate, cpu, tuple(sorted(spread, reverse=True)), busy, int((~good).sum()))


def _connections(pid: int, port: int) -> int:
    """How many clients a worker talks to."""
    found = psutil.Process(pid).net_connections("tcp")
    return sum(1 for one in found if one.laddr and one.laddr.port == port and one.status == "ESTABLISHED")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    raise_limit()
    end_on_sigterm()
    say = Progress("workers")
    counts = [int(word) for word in options.counts.split(",")]
    figures = []
    try:
        with ExitStack() as stack:
            subjects = [_subject(stack, count, say) for count in counts]
            for turn in range(1, options.rounds + 1):
                for subject in subjects:
                    say(f"round {turn} of {options.rounds} · {subject.workers} workers")
                    ways = {name: getattr(options, name) for name in ("seconds", "share", "connections")}
                    figures.append(measure(subject, turn=turn, say=say, **ways))
    except (LoadTestFailed, CrewFailed) as error:
        print(f"workers: {error}", file=sys.stderr)
        return 1
    say.end()
    text = markdown(figures, counts, share=options.share, connections=options.connections)
    stem = report.save("workers", text, {"share": options.share, "figures": [asdict(one) for one in figures]})
    print(text)
    print(f"kept as {stem}.json, .md")
    return 0


def _subject(stack: ExitStack, workers: int, say: crew.Say) -> Subject:
    gateway = stack.enter_context(installed(Setup(workers=workers, mock=("--ttft", str(ENGINE_SECONDS))), say=say))
    key = gateway.tenant("workers")
    version = gateway.adapter("workers", "support", seed=1)
    gateway.alias("workers", "support", {"base": (1, "base"), "tuned": (1, version)})
    return Subject(workers, gateway, tuple(chat("support", key=key, user=f"user-{n}") for n in range(USERS)))


def markdown(figures: Sequence[Figure], counts: Sequence[int], *, share: float, connections: int) -> str:
    """The table; ratios are taken within a round."""
    first = {one.round: one for one in figures if one.workers == counts[0]}
    lines = []
    for count in counts:
        mine = [one for one in figures if one.workers == count]
        ratio = median(one.rate / first[one.round].rate for one in mine)
        spreads = " ".join("/".join(map(str, one.spread)) for one in mine)
        numbers = [
            median(one.rate for one in mine),
            ratio,
            median(one.cpu for one in mine),
            median(one.busy for one in mine),
        ]
        shown = [report.number(value, digits) for value, digits in zip(numbers, (0, 2, 0, 2), strict=True)]
        lines.append([str(count), *shown, spreads, str(sum(one.failed for one in mine))])
    head = ("workers", "requests /s", "ratio", "CPU µs / request", "busy", "connections of each, by round", "failed")
    about = (
        f"{connections} connections; each worker may use {100 * share:.0f} % of a core. Busy: used of that, 1 is all."
    )
    return "\n\n".join(["## Workers", report.machine(), about, report.table(head, lines)]) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.workers", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--counts", default="1,2", help="numbers of workers, the first is what others are compared to")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--share", type=float, default=0.25, help="of one core, for each worker")
    parser.add_argument("--connections", type=int, default=200)
    return parser


if __name__ == "__main__":
    sys.exit(main())
