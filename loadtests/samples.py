"""What was measured: one row per request, one per gap between two tokens; merged over processes by numpy.

Nothing is rounded into buckets: quantiles are those of all requests of all processes. Times are seconds after the start
of the run. It knows no scenario.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


class Problem(IntEnum):
    """How a request ended. `GAVE_UP`: the client hung up because that is what this client does."""

    NONE = 0
    REFUSED = 1  # a status other than 2xx
    CUT = 2  # the connection ended before the answer did
    ERROR_EVENT = 3
    INCOMPLETE = 4  # a stream without [DONE]
    TIMEOUT = 5
    UNREACHABLE = 6
    CHANGED = 7  # a stream that named two models
    GAVE_UP = 8


GOOD = (Problem.NONE, Problem.GAVE_UP)
REQUEST = ("ask", "intended", "sent", "first", "last", "end", "tokens", "status", "problem", "served")
GAP = ("gap_ask", "gap_at", "gap")


@dataclass(slots=True)
class Samples:
    """Columns. `first` and `last` are the moments of the first and the last token (of an answer in one piece: of its
    first and last byte), NaN if there was none. `served` indexes `names` (-1: not said); `gap_at` is when a gap ended.
    `notes` are what a program wants to tell beside (ids of inferences, counts)."""

    columns: dict[str, Column]
    names: list[str] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def merged(cls, parts: Sequence[Samples]) -> Samples:
        """All rows of all parts; the order of the rows means nothing."""
        names = sorted({name for part in parts for name in part.names})
        shifted = [part._renamed(names) for part in parts]
        columns = {
            name: np.concatenate([part.columns[name] for part in shifted]) if shifted else np.empty(0)
            for name in (*REQUEST, *GAP)
        }
        notes: dict[str, list[str]] = {}
        for part in parts:
            for key, values in part.notes.items():
                notes.setdefault(key, []).extend(values)
        return cls(columns, names, notes)

    def _renamed(self, names: list[str]) -> Samples:
        """The same with `served` counting in `names`."""
        places = np.array([*(names.index(name) for name in self.names), -1], dtype=np.float64)
        return Samples({**self.columns, "served": places[self.columns["served"].astype(np.intp)]}, names)

    def __len__(self) -> int:
        return len(self.columns["ask"])

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def where(self, rows: NDArray[np.bool_], gaps: NDArray[np.bool_] | None = None) -> Samples:
        """The requests in `rows` and the gaps in `gaps` (all, if left out)."""
        chosen = {name: self.columns[name][rows] for name in REQUEST}
        chosen |= {name: self.columns[name] if gaps is None else self.columns[name][gaps] for name in GAP}
        return Samples(chosen, self.names)

    def of(self, asks: Sequence[int]) -> Samples:
        """Only these kinds of requests."""
        return self.where(np.isin(self["ask"], asks), np.isin(self["gap_ask"], asks))

    def since(self, moment: float) -> Samples:
        """Only what was meant to begin at `moment` or later."""
        return self.where(self["intended"] >= moment, self["gap_at"] >= moment)

    def problems(self) -> dict[str, int]:
        """How often what went wrong; a refusal with its status."""
        bad = ~np.isin(self["problem"], GOOD)
        pairs = zip(self["problem"][bad], self["status"][bad], strict=True)
        found = Counter(
            f"status {int(status)}" if kind == Problem.REFUSED else Problem(int(kind)).name.lower()
            for kind, status in pairs
        )
        return dict(found.most_common())


class Recording:
    """Rows as they come in, in one process. `start` is the monotonic moment of the run's start."""

    def __init__(self) -> None:
        self.start = 0.0
        self.rows = {name: array("d") for name in REQUEST}
        self.append = [self.rows[name].append for name in REQUEST]
        self.gaps = {name: array("d") for name in GAP}
        self.names: dict[str, int] = {}
        self.notes: dict[str, list[str]] = {}

    def row(self, *values: float) -> None:
        """One request, in the order of `REQUEST`."""
        for append, value in zip(self.append, values, strict=True):
            append(value)

    def name(self, served: str) -> int:
        return self.names.setdefault(served, len(self.names))

    def samples(self) -> Samples:
        columns = {name: np.array(values) for name, values in (self.rows | self.gaps).items()}
        for name in ("intended", "sent", "first", "last", "end", "gap_at"):
            columns[name] = columns[name] - self.start
        return Samples(columns, list(self.names), self.notes)


def quantiles(values: Column, *wanted: float) -> list[float]:
    """Quantiles (0 to 1) of what is a number; NaN without any."""
    values = values[~np.isnan(values)]
    if not len(values):
        return [float("nan")] * len(wanted)
    return [float(value) for value in np.quantile(values, wanted)]


@dataclass(frozen=True, slots=True)
class Objective:
    """The service level that goodput counts against; seconds."""

    ttft: float = 0.2
    tpot: float = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. Times in milliseconds, (p50, p99); rates per second of the measured time."""

    group: str
    seconds: float
    offered: float
    done: float
    failed: int
    problems: dict[str, int]
    ttft: tuple[float, float]
    tpot: tuple[float, float]
    itl: tuple[float, float]
    e2e: tuple[float, float]
    goodput: float
    late: float
    """p99 of how late the client itself sent a request after its intended moment"""


def row(samples: Samples, group: str, *, seconds: float, objective: Objective | None = None) -> Row:
    """The line of these requests. Latencies count from the intended start, so a server (or a client) that falls behind
    cannot hide it."""
    objective = objective or Objective()
    good = samples["problem"] == Problem.NONE
    intended, tokens = samples["intended"][good], samples["tokens"][good]
    first, last, end = samples["first"][good], samples["last"][good], samples["end"][good]
    ttft = first - intended
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = np.where(tokens > 1, (last - first) / (tokens - 1), np.nan)
    met = (ttft <= objective.ttft) & ~(tpot > objective.tpot)
    bad = ~np.isin(samples["problem"], GOOD)
    return Row(
        group,
        seconds,
        len(samples) / seconds,
        float(good.sum()) / seconds,
        int(bad.sum()),
        samples.problems(),
        _ms(ttft),
        _ms(tpot),
        _ms(samples["gap"]),
        _ms(end - intended),
        float(met.sum()) / seconds,
        1000 * quantiles(samples["sent"] - samples["intended"], 0.99)[0],
    )


def _ms(values: Column) -> tuple[float, float]:
    p50, p99 = quantiles(values, 0.5, 0.99)
    return 1000 * p50, 1000 * p99
