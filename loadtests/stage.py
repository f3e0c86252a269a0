"""What a scenario is given and what it gives back. A scenario is a module of `loadtests/scenarios/`:

ABOUT      one line for `--help`
DEFAULTS   its `Knobs`
setup(knobs) → Setup          what has to be started for it
run(stage) → Outcome          drive the load, judge what came back
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests import crew
from loadtests.arrivals import dealt
from loadtests.asks import Address, Ask
from loadtests.crew import Program, Say
from loadtests.installation import Engine, Installation, LoadTestFailed
from loadtests.meter import Cost, Meter
from loadtests.samples import Objective, Row, Samples, row
from loadtests.traffic import Traffic

WARM_SECONDS = 1.0
"""At the start of a run: connections are opened and caches filled. Those requests count for failures, not for times."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """What the command line sets. `rate` is requests a second, offered; `clients` are processes."""

    seconds: float = 20.0
    rate: float = 300.0
    clients: int = 1
    workers: int = 1
    engine: Engine = "mock"
    seed: int = 1
    objective: Objective = field(default_factory=Objective)
    key: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that has to hold, and what was seen."""

    text: str
    held: bool
    seen: str


@dataclass(slots=True)
class Run:
    """One stretch of load: what was measured and what it cost."""

    samples: Samples
    cost: Cost
    start: float
    seconds: float

    @property
    def requests(self) -> int:
        return len(self.samples)


@dataclass(slots=True)
class Outcome:
    """A scenario's result. `figures` are its own, name → value; `run` is the stretch that the plot shows."""

    rows: list[Row]
    run: Run
    claims: list[Claim] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Stage:
    """A gateway under test, and the knobs."""

    gateway: Installation
    knobs: Knobs
    say: Say

    @property
    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.knobs.seed)

    @property
    def address(self) -> Address:
        return self.gateway.address

    def tenant(self, name: str, *, tuned: bool = True, **options: Any) -> tuple[str, str]:
        """A key and a model to ask for. With `--key` and `--model`, these. Else a new tenant whose alias `support`
        splits its users between the base model and (`tuned`) an adapter version, or twice the base model."""
        knobs = self.knobs
        if knobs.key is not None:
            if knobs.model is None:
                raise LoadTestFailed("--key needs --model: what to ask for")
            return knobs.key, knobs.model
        key = self.gateway.tenant(name, **options)
        other = self.gateway.adapter(name, "support", seed=len(name)) if tuned else "base"
        self.gateway.alias(name, "support", {"base": (1, "base"), "tuned": (1, other)})
        return key, "support"

    def open_loop(
        self, asks: Sequence[Ask], which: NDArray[np.int32], times: NDArray[np.float64], **options: Any
    ) -> list[Program]:
        """The schedule dealt out to the client processes."""
        hands = dealt(len(times), self.knobs.clients)
        return [Traffic(self.address, tuple(asks), which[hand], times[hand], **options) for hand in hands]

    def measure(
        self, programs: Sequence[Program], *, seconds: float, during: Callable[[float], None] | None = None
    ) -> Run:
        """Run the programs, with the meter on if the gateway's processes are here."""
        gateway = self.gateway
        meter = Meter(gateway.pid, home=gateway.home, url=gateway.url) if gateway.pid is not None else None
        if meter is not None:
            meter.start()
        try:
            samples, start = crew.run(programs, say=self.say, during=during)
        finally:
            cost = meter.stop() if meter is not None else Cost()
        return Run(samples, cost, start, seconds)

    def outcome(self, run: Run, asks: Sequence[Ask], *, warm: float = WARM_SECONDS) -> Outcome:
        """Rows for every group of `asks` and one for all; failures are of the whole run, times of the warm part."""
        groups = grouped(asks)
        rows = [self.row(run, name, places, warm=warm) for name, places in groups.items()]
        if len(groups) > 1:
            rows.append(self.row(run, "all", range(len(asks)), warm=warm))
        return Outcome(rows, run, groups=groups)

    def row(self, run: Run, name: str, places: Iterable[int], *, warm: float = WARM_SECONDS) -> Row:
        mine = run.samples.of(list(places))
        made = row(mine.since(warm), name, seconds=max(run.seconds - warm, 0.1), objective=self.knobs.objective)
        problems = mine.problems()
        return replace(made, failed=sum(problems.values()), problems=problems)


def grouped(asks: Sequence[Ask]) -> dict[str, list[int]]:
    """Group → places in `asks`."""
    groups: dict[str, list[int]] = {}
    for place, ask in enumerate(asks):
        groups.setdefault(ask.group, []).append(place)
    return groups


def none_failed(rows: Sequence[Row], *, of: str = "requests") -> Claim:
    """The claim that every scenario makes of its well-behaved clients."""
    problems: dict[str, int] = {}
    for one in rows:
        if one.group != "all" or len(rows) == 1:
            for name, count in one.problems.items():
                problems[name] = problems.get(name, 0) + count
    seen = ", ".join(f"{count} with {name}" for name, count in problems.items()) or "none"
    return Claim(f"no {of} failed", not problems, seen)
