"""From sums over units to a difference and its standard error. Pure: it knows no metric's name and decides nothing.

A unit contributes a pair (n measurements, their sum s); an arm's mean is the ratio of the two sums, its variance that
of the delta method over units, so that ten judgements of one user are not ten users. Arms are compared within each
epoch, and the epochs' differences averaged by their units: what a change of weights would otherwise mix (Simpson's
paradox) never meets. All arithmetic is elementwise: the fields of `Sums` may be arrays of shape (..., epochs), which is
how tests/gateway/feedback/truth simulates thousands of experiments through these very functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from gateway.experiment import Sums

BORROWED = 10
"""In every epoch, an arm's variance counts as if so many more units had the arm's variance over all epochs: that of
three units would otherwise be a gamble. With one epoch it changes nothing."""

_FIELDS = tuple(one.name for one in fields(Sums))

MADE_UP = 2
"""Fewer let a guardrail on a rare event hold too easily: with a half, 11 % of the false ones held at alpha = 5 %."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm by epoch: arrays of shape (..., epochs), of the metric and of the same before the first exposure.

    `mean` is sum / count; `variance` that of one unit's part in it, `before_variance` and `covariance` those of and
    with its part in `before`, the mean of the past. 0 where a number cannot be had.
    """

    units: Any
    mean: Any
    variance: Any
    before: Any
    before_variance: Any
    covariance: Any


@dataclass(frozen=True, slots=True)
class Contrast:
    """`arm` minus `factor` times `control`, with the standard error. Arrays of shape (...).

    `freedom` is Welch's, for the diagnostics. Where nothing can be compared units are 0 and the rest means nothing.
    """

    value: Any
    se: Any
    arm_units: Any
    control_units: Any
    arm: Any
    control: Any
    freedom: Any

    @property
    def units(self) -> Any:
        """Of both."""
        return self.arm_units + self.control_units


def stack(epochs: Sequence[Sums]) -> Sums:
    """One `Sums` of arrays of shape (epochs,), from one of numbers per epoch."""
    table = np.array([[getattr(sums, name) for sums in epochs] for name in _FIELDS], dtype=float)
    return Sums(**dict(zip(_FIELDS, table, strict=True)))


def total(epochs: Sequence[Sums]) -> Sums:
    """The sums over all of them."""
    return Sums(**{name: sum(getattr(sums, name) for sums in epochs) for name in _FIELDS})


def arm(sums: Sums, *, bounded: bool = False) -> Arm:
    """What one arm's sums, by epoch, come to.

    `bounded` says that values lie in [0, 1]. Then the variance counts two made-up units at either end (Agresti and
    Coull's four), so that no failure among a hundred does not pass for certainty; their weight vanishes as units come.
    """
    units = np.asarray(sums.units, dtype=float)
    mean, before = _over(sums.s, sums.n), _over(sums.x, sums.m)
    count, past = _over(sums.n, units), _over(sums.m, units)
    spread = sums.ss - 2 * mean * sums.ns + mean**2 * sums.nn
    past_spread = sums.xx - 2 * before * sums.mx + before**2 * sums.mm
    both = sums.sx - mean * sums.nx - before * sums.sm + mean * before * sums.nm
    variance = _over(np.maximum(spread, 0.0), (units - 1) * count**2)  # rounding may leave a tiny negative number
    if bounded:
        ends = MADE_UP * (1 - mean) ** 2 + MADE_UP * mean**2
        variance = _over((units - 1) * variance + ends, units)
    return Arm(
        units,
        mean,
        variance=_borrowed(units, variance),
        before=before,
        before_variance=_over(np.maximum(past_spread, 0.0), (units - 1) * past**2),
        covariance=_over(both, (units - 1) * count * past),
    )


def contrast(one: Arm, control: Arm, *, factor: Any = 1.0, steadied: bool = False) -> Contrast:
    """Compare them in the epochs in which both have two units or more. `factor` is of shape (...).

    `steadied` takes away what the units' past explains (CUPED): the multiple of the difference of the past, which is 0
    but for chance, that leaves the least variance, so never more than without. It is all put on the arm.
    """
    usable = (one.units >= 2) & (control.units >= 2)
    ours, others = np.where(usable, one.units, 0.0), np.where(usable, control.units, 0.0)
    pair, scale = ours + others, np.asarray(factor, dtype=float)[..., None]
    weight = _over(pair, pair.sum(axis=-1)[..., None])
    share, control_share = _over(weight**2, one.units), _over(weight**2, control.units)
    parts, control_parts = share * one.variance, scale**2 * control_share * control.variance
    variance = (parts + control_parts).sum(axis=-1)
    steps = _over(parts**2, one.units - 1) + _over(control_parts**2, control.units - 1)
    mine, theirs = (weight * one.mean).sum(axis=-1), (weight * control.mean).sum(axis=-1)
    freedom = _over(variance**2, steps.sum(axis=-1))
    if steadied:
        past = (weight * (one.before - control.before)).sum(axis=-1)
        past_variance = (share * one.before_variance + control_share * control.before_variance).sum(axis=-1)
        theta = _over((share * one.covariance + scale * control_share * control.covariance).sum(axis=-1), past_variance)
        mine, variance = mine - theta * past, np.maximum(variance - theta**2 * past_variance, 0.0)
    value, heads = mine - factor * theirs, (ours.sum(axis=-1), others.sum(axis=-1))
    return Contrast(value, np.sqrt(variance), *heads, mine, theirs, freedom)


def _borrowed(units: Any, variance: Any) -> Any:
    """The variance per epoch, drawn towards the arm's over all epochs."""
    free = np.maximum(units - 1, 0.0)
    overall = _over((free * variance).sum(axis=-1), free.sum(axis=-1))
    return (free * variance + BORROWED * overall[..., None]) / (free + BORROWED)


def _over(above: Any, below: Any) -> Any:
    """The quotient, 0 where there is nothing to divide by."""
    divisor = np.asarray(below, dtype=float)
    there = divisor > 0
    return np.asarray(above, dtype=float) * there / np.where(there, divisor, 1.0)
