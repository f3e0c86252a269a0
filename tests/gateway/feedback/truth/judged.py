"""Experiments and evidence for `verdict.judge`, made in a line or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from gateway.domain import Metric, MetricKind, Variant
from gateway.experiment import Epoch, Evidence, Experiment, Plan, Stage, Sums

NOW = datetime(2026, 11, 22, tzinfo=UTC)

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("acme", "liked", MetricKind.BOOLEAN),
        Metric("acme", "error_rate", MetricKind.BOOLEAN, "min"),
        Metric("acme", "latency", MetricKind.FLOAT, "min", unit="ms"),
        Metric("acme", "stars", MetricKind.FLOAT, unit="stars"),
        Metric("acme", "orders", MetricKind.COUNT),
    )
}


def experiment(
    plan: Plan, *candidates: str, weights: Sequence[Sequence[float]] = (), stage: Stage = Stage.EXPERIMENT
) -> Experiment:
    """Control and candidates ("new" if none is named), with an epoch for each of the `weights` (else one, equal)."""
    names = ("control", *(candidates or ("new",)))
    epochs = [Epoch(at + 1, NOW, tuple(row)) for at, row in enumerate(weights or [[1.0] * len(names)])]
    variants = tuple(Variant(name, weight, None) for name, weight in zip(names, epochs[-1].weights, strict=True))
    return Experiment("e1", "acme", "chat", "tone", variants, stage, NOW, plan, epochs=tuple(epochs))


def sums(n: Any, s: Any, m: Any = 0.0, x: Any = 0.0) -> Sums:
    """Of one row per unit. Numbers stand for the same in every unit."""
    of = dict(zip("nsmx", np.broadcast_arrays(*(np.asarray(one, dtype=float) for one in (n, s, m, x))), strict=True))
    fields = {name: float(values.sum()) for name, values in of.items()}
    fields |= {a + b: float(of[a] @ of[b]) for a in of for b in of if a + b in Sums.__slots__}
    return Sums(units=of["n"].size, **fields)


def shares(units: int, happy: int) -> Sums:
    """Units that said one boolean each."""
    return Sums(units=units, n=units, s=happy, nn=units, ns=happy, ss=happy)


def evidence(exposed: Mapping[str, int], **metrics: Mapping[str, Sums]) -> Evidence:
    """One epoch. `exposed` and each metric's sums by variant."""
    found = {(name, 0, variant): one for name, arms in metrics.items() for variant, one in arms.items()}
    return Evidence({(0, variant): units for variant, units in exposed.items()}, found, units_per_day=100.0)


def interval(n: Any, s: Any, *, bounded: bool) -> tuple[float, float, float]:
    """The mean of units that were measured `n` times with the sums `s`, and its sequence's ends at alpha = 5 % and
    N* = 500: the published formulas once more, in their own words."""
    n, s = np.asarray(n, dtype=float), np.asarray(s, dtype=float)
    units, mean = n.size, s.sum() / n.sum()
    variance = np.var((s - mean * n) / n.mean(), ddof=1)
    if bounded:
        variance = ((units - 1) * variance + 2 * mean**2 + 2 * (1 - mean) ** 2) / units
    rho2 = (-2 * np.log(0.05) + np.log(-2 * np.log(0.05) + 1)) / 500
    grown = units * rho2 + 1
    width = np.sqrt(variance / units * 2 * grown / (units * rho2) * np.log(np.sqrt(grown) / 0.05))
    low, high = mean - width, mean + width
    return (mean, max(low, 0.0), min(high, 1.0)) if bounded else (mean, low, high)
