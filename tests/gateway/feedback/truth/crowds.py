"""Crowds of units, and how an experiment looks while they come in: arrays of shape (experiments, looks)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from gateway.experiment import Sums
from gateway.feedback import estimation, sequences
from gateway.feedback.estimation import Contrast

ALPHA = 0.05
BURN_IN = 100


def looked(every: int, n: Any, s: Any, m: Any = None, x: Any = None) -> Sums:
    """The sums after each `every` units. Arguments have a row per experiment and a column per unit, in the order in
    which they come; fields have the shape (experiments, looks, 1): one epoch."""
    of = {"n": np.asarray(n, dtype=float), "s": np.asarray(s, dtype=float)}
    if m is not None and x is not None:
        of |= {"m": np.asarray(m, dtype=float), "x": np.asarray(x, dtype=float)}
    products = {one: of[one] for one in of} | {
        a + b: of[a] * of[b] for a in of for b in of if "nsmx".find(a) <= "nsmx".find(b)
    }
    fields = {name: _running(values, every) for name, values in products.items() if name in Sums.__slots__}
    runs, units = of["n"].shape
    seen = np.broadcast_to(np.arange(every, units + 1, every, dtype=float)[None, :, None], (runs, units // every, 1))
    return Sums(units=seen, **fields)


def ones(values: Any, every: int) -> Sums:
    """Each unit says one thing."""
    return looked(every, np.ones_like(values, dtype=float), values)


def compared(arm: Sums, control: Sums, *, bounded: bool = True, factor: Any = 1.0, steadied: bool = False) -> Contrast:
    """As `figures.py` compares them."""
    arms = estimation.arm(arm, bounded=bounded), estimation.arm(control, bounded=bounded)
    return estimation.contrast(*arms, factor=factor, steadied=steadied)


def p_values(found: Contrast, *, alpha: float = ALPHA, planned: float = 1000) -> Any:
    """At every look; 1 before the burn-in."""
    late = np.minimum(found.arm_units, found.control_units) >= BURN_IN
    return np.where(late, sequences.p_value(found.value, found.se, found.units, tuned=alpha, planned=planned), 1.0)


def naive(found: Contrast, *, least: int = 10) -> Any:
    """Where a t-test would say "significant", look by look."""
    beyond = np.abs(found.value) > stats.t.ppf(1 - ALPHA / 2, np.maximum(found.units - 2, 1)) * found.se
    return beyond & (np.minimum(found.arm_units, found.control_units) >= least)


def ever(hits: Any) -> float:
    """The share of experiments in which it happens at any look."""
    return float(np.asarray(hits).any(axis=-1).mean())


def first(hits: Any, at: Any) -> Any:
    """Per experiment: `at` of the first look at which it happens; infinite if it never does."""
    hits = np.asarray(hits)
    sizes = np.broadcast_to(at, hits.shape)
    return np.where(hits.any(axis=-1), np.take_along_axis(sizes, hits.argmax(axis=-1)[:, None], axis=-1)[:, 0], np.inf)


def _running(values: Any, every: int) -> Any:
    runs, units = values.shape
    return values.reshape(runs, units // every, every).sum(axis=2).cumsum(axis=1)[..., None]
