"""Histograms that cost half a microsecond a record, and their translation into OpenTelemetry's data points.

Written by the event loop, read by whoever collects, from any thread: a reader may see a record's count before its sum,
which the next reading mends.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

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
    """Counts of values between bounds (a bound belongs to the bucket below it)."""

    __slots__ = ("attributes", "bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float], attributes: Attributes) -> None:
        self.bounds = bounds
        self.attributes = attributes
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def record(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


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

    def metric(self, now: int) -> Metric | None:
        """The state of things, for an exporter; None while there is nothing."""
        all_of_them = [*self._series, self._rest] if self._rest is not None else self._series
        points = [self._point(one, now) for one in tuple(all_of_them) if any(one.counts)]
        data = Histogram(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
        return Metric(self.name, self.description, self.unit, data) if points else None

    def _point(self, one: Buckets, now: int) -> HistogramDataPoint:
        counts = tuple(one.counts)
        return HistogramDataPoint(
            attributes=dict(one.attributes),
            start_time_unix_nano=self._since,
            time_unix_nano=now,
            count=sum(counts),
            sum=one.sum,
            bucket_counts=counts,
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
