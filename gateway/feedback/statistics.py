"""Which variant is better, from sums per unit. Pure: numbers in, intervals out; it knows no SQL, tenant or clock.

The unit of analysis is the unit of assignment (the targeting key): ten judgements of one user are not ten users. Each
unit contributes a pair (n judgements, their sum); a variant's rate is the ratio of the two means, with the variance of
the delta method. Intervals are asymptotic confidence sequences (Waudby-Smith et al., 2021): they hold at every look at
once, so whoever watches a running experiment may stop whenever they like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.feedback import sequences

ALPHA = 0.05
"""The chance, over a whole experiment, that a sequence ever misses the truth."""

PLANNED_UNITS = 500
"""N*: the sample size at which the sequence is tightest. Fixed in advance; at other sizes it is valid, only wider."""

BURN_IN = 100
"""Units an arm needs before a difference may be called: the sequence is asymptotic and says nothing of a handful."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval on the metric's own scale."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether `value` lies strictly outside."""
        return value < self.low or value > self.high


@dataclass(frozen=True, slots=True)
class UnitMoments:
    """The sufficient statistics of one arm: over its units, moments of (n judgements, sum of values) per unit.

    Variances and the covariance are sample ones (divided by units - 1), and 0 where there are fewer than two units.
    """

    units: int
    judgements: int
    total: float
    var_count: float = 0.0
    var_total: float = 0.0
    covariance: float = 0.0

    @classmethod
    def of(cls, counts: Any, totals: Any) -> UnitMoments:
        """From one row per unit: `counts` (judgements of the unit) and `totals` (their sum), both of shape (units,)."""
        n, s = np.asarray(counts, dtype=float), np.asarray(totals, dtype=float)
        spread = np.cov(n, s, ddof=1) if n.size > 1 else np.zeros((2, 2))
        return cls(n.size, int(n.sum()), float(s.sum()), float(spread[0, 0]), float(spread[1, 1]), float(spread[0, 1]))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A rate (boolean metrics) or mean, with its standard error. `interval` is None below two units."""

    units: int
    judgements: int
    value: float
    se: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Arm minus reference. `conclusive` once both arms are past the burn-in and the interval excludes 0."""

    value: float
    se: float
    interval: Interval | None
    conclusive: bool


def half_width(se: Any, n: Any) -> Any:
    """Half the width of the confidence sequence after `n` units, given the standard error then. Arrays or scalars."""
    return sequences.half_width(se, n, alpha=ALPHA, planned=PLANNED_UNITS)


def ratio_se(moments: UnitMoments, *, bounded: bool = False) -> float:
    """The standard error of sum / count by the delta method, over units.

    `bounded` says that values lie in [0, 1]. Then half a made-up unit is added at either end, so that five successes
    out of five do not pass for certainty; its weight vanishes as units come in.
    """
    mean_count = moments.judgements / moments.units
    ratio = moments.total / moments.judgements
    variance = moments.var_total - 2 * ratio * moments.covariance + ratio**2 * moments.var_count
    variance = max(variance, 0.0) / mean_count**2  # rounding may leave a tiny negative number
    if bounded:
        ends = 0.5 * (1 - ratio) ** 2 + 0.5 * ratio**2
        variance = ((moments.units - 1) * variance + ends) / moments.units
    return float(np.sqrt(variance / moments.units))


def estimate(moments: UnitMoments, *, bounded: bool = False) -> Estimate | None:
    """The rate or mean of one arm; None where nobody has judged it yet."""
    if moments.units == 0 or moments.judgements == 0:
        return None
    value = moments.total / moments.judgements
    se = ratio_se(moments, bounded=bounded)
    if moments.units < 2:
        return Estimate(moments.units, moments.judgements, value, se, None)
    width = float(half_width(se, moments.units))
    low, high = value - width, value + width
    interval = Interval(max(low, 0.0), min(high, 1.0)) if bounded else Interval(low, high)
    return Estimate(moments.units, moments.judgements, value, se, interval)


def difference(arm: Estimate, reference: Estimate) -> Difference:
    """How far `arm` lies from `reference`, as a sequence in the number of units of both together."""
    value, se = arm.value - reference.value, float(np.hypot(arm.se, reference.se))
    if min(arm.units, reference.units) < 2:
        return Difference(value, se, None, conclusive=False)
    width = float(half_width(se, arm.units + reference.units))
    interval = Interval(value - width, value + width)
    past_burn_in = min(arm.units, reference.units) >= BURN_IN
    return Difference(value, se, interval, conclusive=past_burn_in and interval.excludes(0.0))
