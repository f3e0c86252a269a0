"""Histograms that cost a list's append for each record, and their translation into OpenTelemetry's data points.

Written by the event loop, folded each second, read by whoever collects, from any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import numpy as np
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from gateway.telemetry import names

Attributes = Mapping[str, str | int | bool]


class Buckets:
    """Counts of values between bounds (a bound belongs to the bucket below it).

    `record` only keeps a value, which takes no call of Python's; `fold` counts what was kept, many at a time.
    """

    __slots__ = ("_counts", "_folding", "_sum", "_values", "attributes", "bounds", "record")

    def __init__(self, bounds: Sequence[float], attributes: Attributes) -> None:
        self.bounds = bounds
        self.attributes = attributes
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self._sum = 0.0
        self._values: list[float] = []
        self._folding = Lock()
        self.record: Callable[[float], None] = self._values.append

    def fold(self) -> tuple[list[int], float]:
        """The counts and the sum of all that was recorded before."""
        with self._folding:
            values = self._values[:]
            if values:
                del self._values[: len(values)]  # what came in between stays
                self._counts += np.bincount(np.searchsorted(self.bounds, values), minlength=len(self._counts))
                self._sum += sum(values)
            return self._counts.tolist(), self._sum


class Family:
    """One metric: a histogram per combination of attribute values, a bounded number of them.

    What comes after the first `most` combinations is counted together, marked as overflow.
    """

    def __init__(self, name: str, unit: str, bounds: Sequence[float], description: str, *, most: int = 2000) -> None:
        self.name, self.unit, self.bounds, self.description = name, unit, bounds, description
        self._most = most
        self._rest: Buckets | None = None
        self._series: list[Buckets] = []
        self._since = time.time_ns()

    def series(self, attributes: Attributes) -> Buckets:
        """Begin a combination. The caller keeps what it gets."""
        if len(self._series) >= self._most:
            if self._rest is None:
                self._rest = Buckets(self.bounds, {names.OVERFLOW: True})
            return self._rest
        one = Buckets(self.bounds, attributes)
        self._series.append(one)
        return one

    def fold(self) -> None:
        """Count what was recorded, so that it takes no room."""
        for one in (*self._series, *([self._rest] if self._rest is not None else ())):
            one.fold()

    def metric(self, now: int) -> Metric | None:
        """The state of things, for an exporter; None while there is nothing."""
        all_of_them = [*self._series, self._rest] if self._rest is not None else self._series
        points = [point for one in tuple(all_of_them) if (point := self._point(one, now)).count]
        data = Histogram(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
        return Metric(self.name, self.description, self.unit, data) if points else None

    def _point(self, one: Buckets, now: int) -> HistogramDataPoint:
        counts, total = one.fold()
        return HistogramDataPoint(
            attributes=dict(one.attributes),
            start_time_unix_nano=self._since,
            time_unix_nano=now,
            count=sum(counts),
            sum=total,
            bucket_counts=tuple(counts),
            explicit_bounds=tuple(self.bounds),
            min=float("nan"),  # not kept
            max=float("nan"),
        )


class Reading:
    """A number that somebody else keeps and that is read when asked for: a gauge, or a counter since the start."""

    def __init__(self, name: str, read: Callable[[], float], *, counter: bool) -> None:
        self.name, self._read, self._counter = name, read, counter
        self._since = time.time_ns()

    def metric(self, now: int) -> Metric:
        point = NumberDataPoint({}, self._since, now, self._read())
        if self._counter:
            data: Sum | Gauge = Sum([point], AggregationTemporality.CUMULATIVE, is_monotonic=True)
        else:
            data = Gauge([point])
        return Metric(self.name, None, "", data)
