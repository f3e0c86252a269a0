"""Plots as data: what static/console.js draws, and the same as a table. Values in, JSON out; it draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from gateway.console import words
from gateway.console.words import SHARE

MOST_POINTS = 400
"""More than a plot has pixels for help nobody; the table alternative would be a wall."""

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """One line, named at its end. With `low` and `high` its interval is shaded. `colour` is 0 (grey) to 4."""

    name: str
    mid: Values
    low: Values | None = None
    high: Values | None = None
    colour: int = 1
    dashed: bool = False


@dataclass(frozen=True)
class Plot:
    """`x` are moments, or numbers. `signed`: the values are differences, and the line of zero matters; `zero`: the axis
    begins at zero. Shares are shown in percent, their differences in percentage points."""

    id: str
    title: str
    x: Sequence[datetime] | Sequence[float]
    lines: Sequence[Line]
    metric_unit: str = ""
    signed: bool = False
    zero: bool = False
    note: str = ""
    x_title: str = "When (UTC)"

    @property
    def unit(self) -> str:
        """What a person reads on the axis."""
        if self.metric_unit == SHARE:
            return "percentage points" if self.signed else "%"
        return self.metric_unit

    @cached_property
    def chosen(self) -> list[int]:
        """The positions that are shown: all, or as many as there is room for, the last always among them."""
        count = len(self.x)
        step = max(1, -(-count // MOST_POINTS))
        return list(range((count - 1) % step, count, step))

    @property
    def spec(self) -> dict[str, Any]:
        """For the script."""
        times = [at.timestamp() if isinstance(at, datetime) else at for at in self._of(self.x)]
        return {
            "x": times,
            "time": bool(self.x) and isinstance(self.x[0], datetime),
            "signed": self.signed,
            "zero": self.zero,
            "share": self.metric_unit == SHARE,
            "lines": [
                {
                    "name": line.name,
                    "colour": line.colour,
                    "dashed": line.dashed,
                    **{part: self._scaled(getattr(line, part)) for part in ("mid", "low", "high")},
                }
                for line in self.lines
            ],
        }

    @property
    def summary(self) -> str:
        """What the picture shows last, for who cannot see it."""
        said = (
            [f"{line.name} {self._cell(line, len(self.x) - 1)}" for line in self.lines] if self.x else ["no data yet"]
        )
        return f"{self.title}: {'; '.join(said)}"

    @property
    def rows(self) -> list[list[str]]:
        """The newest first: when, then each line's value with its interval."""
        return [
            [self._when(self.x[at]), *(self._cell(line, at) for line in self.lines)] for at in reversed(self.chosen)
        ]

    def _of(self, values: Sequence[Any]) -> list[Any]:
        return [values[at] for at in self.chosen]

    def _scaled(self, values: Values | None) -> list[float | None] | None:
        if values is None:
            return None
        factor = 100.0 if self.metric_unit == SHARE else 1.0
        return [None if value is None else value * factor for value in self._of(values)]

    def _when(self, at: datetime | float) -> str:
        return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if isinstance(at, datetime) else words.number(at)

    def _cell(self, line: Line, at: int) -> str:
        text = words.measured(line.mid[at], self.metric_unit, signed=self.signed)
        if line.low is None or line.high is None:
            return text
        return f"{text} ({words.interval(line.low[at], line.high[at], self.metric_unit)})"
