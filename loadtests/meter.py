"""What a server costs while it is under load: CPU and memory of its processes, and how long its event loops were busy.

CPU is the kernel's own accounting, so it holds on a noisy machine where latencies do not. Processes are told apart by
their command lines; those of the engine count for nobody. PostgreSQL, a daemon, is found by its data directory.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

EVERY = 0.5
"""Seconds between two looks."""
ENGINES = ("loadtests.mock", "gateway.engine.fake", "vllm.entrypoints")


@dataclass(frozen=True, slots=True)
class Look:
    """One look: seconds of CPU so far and bytes resident, per role (`worker`, `rest`, `postgres`)."""

    at: float
    cpu: dict[str, float]
    rss: dict[str, int]
    processes: dict[int, float]
    """CPU seconds of each worker, by pid: how evenly the kernel spreads connections"""


@dataclass(slots=True)
class Cost:
    """Between the first and the last look. CPU in seconds, memory in bytes; `lag` in seconds (p50, p99, max bucket)."""

    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    rss_first: dict[str, int] = field(default_factory=dict)
    rss_most: dict[str, int] = field(default_factory=dict)
    workers: list[float] = field(default_factory=list)
    """Share of each worker in the workers' CPU, the busiest first"""
    lag: tuple[float, float] | None = None
    """p50 and p99 of the event loop's lag, where the server tells it"""
    probe: tuple[float, float] | None = None
    """p50 and p99 of a `/healthz` on a connection of its own, every 100 ms"""

    @property
    def gateway_cpu(self) -> float:
        """Everything but the database's."""
        return sum(seconds for role, seconds in self.cpu.items() if role != "postgres")


class Meter:
    """Watches the process tree under `pid`, in a thread, between `start` and `stop`."""

    def __init__(self, pid: int, *, home: Path | None = None, url: str | None = None) -> None:
        self._root = psutil.Process(pid)
        self._postgres = _postmaster(home) if home else None
        self._url = url
        self.looks: list[Look] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._probes: list[float] = []
        self._lag: dict[float, float] = {}

    def start(self) -> None:
        self._lag = self._lags()
        self.looks.append(self.look())
        self._thread.start()

    def stop(self) -> Cost:
        """The last look, and what all of them amount to."""
        self._stop.set()
        self._thread.join(10)
        self.looks.append(self.look())
        first, last = self.looks[0], self.looks[-1]
        cost = Cost(last.at - first.at, rss_first=first.rss)
        cost.cpu = {role: last.cpu[role] - first.cpu.get(role, 0.0) for role in last.cpu}
        cost.rss_most = {role: max(look.rss.get(role, 0) for look in self.looks) for role in last.rss}
        spent = [seconds - first.processes.get(pid, 0.0) for pid, seconds in last.processes.items()]
        cost.workers = sorted((one / max(sum(spent), 1e-9) for one in spent), reverse=True)
        after = self._lags()
        grown = {bound: count - self._lag.get(bound, 0.0) for bound, count in after.items()}
        if grown and max(grown.values()) > 0:
            cost.lag = (bucket_quantile(grown, 0.5), bucket_quantile(grown, 0.99))
        if self._probes:
            ranked = sorted(self._probes)
            cost.probe = (ranked[len(ranked) // 2], ranked[int(0.99 * (len(ranked) - 1))])
        return cost

    def look(self) -> Look:
        cpu: dict[str, float] = {"worker": 0.0, "rest": 0.0}
        rss: dict[str, int] = {"worker": 0, "rest": 0}
        workers: dict[int, float] = {}
        for role, process in self._members():
            with contextlib.suppress(psutil.Error):
                times, memory = process.cpu_times(), process.memory_info().rss
                cpu[role] = cpu.get(role, 0.0) + times.user + times.system
                rss[role] = rss.get(role, 0) + memory
                if role == "worker":
                    workers[process.pid] = times.user + times.system
        return Look(time.monotonic(), cpu, rss, workers)

    def _members(self) -> Iterator[tuple[str, psutil.Process]]:
        yield _role(self._root), self._root
        engines: set[int] = set()
        for process in self._root.children(recursive=True):
            role = _role(process)
            if role == "engine" or process.ppid() in engines:
                engines.add(process.pid)
            else:
                yield role, process
        if self._postgres is not None:
            with contextlib.suppress(psutil.Error):
                for process in (self._postgres, *self._postgres.children(recursive=True)):
                    yield "postgres", process

    def _watch(self) -> None:
        next_look = time.monotonic()
        while not self._stop.wait(0.1):
            if self._url is not None:
                self._probe()
            if time.monotonic() >= next_look:
                next_look += EVERY
                self.looks.append(self.look())

    def _probe(self) -> None:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self._url}/healthz", timeout=10).read()  # noqa: S310 — the server under test
            self._probes.append(time.monotonic() - began)

    def _lags(self) -> dict[float, float]:
        """The loop-lag histogram, where `/metrics` has one: bound → cumulative count."""
        if self._url is None:
            return {}
        try:
            with urllib.request.urlopen(f"{self._url}/metrics", timeout=10) as reply:  # noqa: S310 — as above
                return histogram(reply.read().decode(), "loop_lag")
        except OSError:
            return {}


def _role(process: psutil.Process) -> str:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return "rest"
    if any(engine in command for engine in ENGINES):
        return "engine"
    return "worker" if "gateway.worker" in command else "rest"


def _postmaster(home: Path) -> psutil.Process | None:
    for file in (home / "postgres").rglob("postmaster.pid"):
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            return psutil.Process(int(file.read_text().splitlines()[0]))
    return None


_BUCKET = re.compile(r'^(\w+)_bucket\{(?:[^}]*,)?le="([^"]+)"[^}]*\} (\S+)', re.MULTILINE)


def histogram(text: str, name: str) -> dict[float, float]:
    """The cumulative counts of the Prometheus histogram whose name holds `name`, summed over its labels, by bound."""
    found: dict[float, float] = {}
    for metric, bound, count in _BUCKET.findall(text):
        if name in metric:
            found[float(bound)] = found.get(float(bound), 0.0) + float(count)
    return found


def bucket_quantile(cumulative: dict[float, float], q: float) -> float:
    """Prometheus's rule: linear within the bucket that holds the quantile; the last bound, if it is beyond all."""
    bounds = sorted(cumulative)
    wanted = q * cumulative[bounds[-1]]
    below, low = 0.0, 0.0
    for bound in bounds:
        count = cumulative[bound]
        if count >= wanted:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (wanted - below) / max(count - below, 1e-12)
        below, low = count, bound
    return low


def as_json(cost: Cost) -> dict[str, object]:
    """For a result file."""
    told: dict[str, object] = json.loads(json.dumps({name: getattr(cost, name) for name in Cost.__slots__}))
    return told
