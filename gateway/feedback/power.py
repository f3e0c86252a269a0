"""How many units an experiment needs, asked before it starts. Pure.

Beside the sequence, which may be looked at all the time, stands the textbook's test that may be looked at once at a
size fixed before. How much longer the sequence takes is no formula: it is simulated, once for each alpha and power, on
random walks, which is what every estimate becomes in the long run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gateway.errors import InvalidRequest
from gateway.feedback import sequences

WALKS = 4000
LONGEST = 8.0
"""Times the fixed test's size: how long a walk is followed."""
MOST, LEAST_ALPHA = 1e12, 1e-6
"""What is beyond these is a slip of whoever types, and its square would leave the range of a float."""


@dataclass(frozen=True, slots=True)
class UnitsNeeded:
    """Units that take part, of all arms together, and days at the given rate (None where none was given).

    `planned_units` is what to put into the plan: units of both compared arms that have the metric. `fixed_units` is a
    fixed-sample test's size. With the sequence, half of the experiments are conclusive after `typical_units`, and the
    wanted share (the power) after `units`.
    """

    planned_units: int
    fixed_units: int
    typical_units: int
    units: int
    fixed_days: float | None = None
    typical_days: float | None = None
    days: float | None = None


def units_needed(
    *,
    base: float,
    effect: float,
    relative: bool = False,
    sd: float | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
    comparisons: int = 1,
    weights: Sequence[float] = (1.0, 1.0),
    per_unit: float = 1.0,
    correlation: float = 0.0,
    coverage: float = 1.0,
    units_per_day: float | None = None,
) -> UnitsNeeded:
    """Units until an effect of that size is found with chance `power`.

    `base` is the control's mean: a rate (0..1) if `sd` is None, else a number with that standard deviation between
    measurements. `effect` is the smallest difference worth knowing, as a share of `base` if `relative`. `comparisons`:
    goals times candidates. `weights`: the control's first. `per_unit`: how often a unit is measured, on average, and
    `correlation` (0..1) how alike one unit's measurements are: 0 as strangers', 1 all the same. `coverage`: the share
    of units that are measured at all. Raises `InvalidRequest`.
    """
    gap = effect * abs(base) if relative else effect
    _check(base, gap, sd, alpha, power)
    _check_shape(weights, per_unit, correlation, coverage, comparisons, units_per_day)
    control_variance, variance = (sd**2, sd**2) if sd is not None else (base * (1 - base), _rate_variance(base + gap))
    design = (1 + (per_unit - 1) * correlation) / per_unit
    least = min(weights[1:])
    share = least / (weights[0] + least)
    spread = design * (control_variance / (1 - share) + variance / share)
    level = alpha / comparisons
    fixed = spread * (_quantile(1 - level / 2) + _quantile(power)) ** 2 / gap**2
    half, wanted = _stretch(alpha, level, power)
    everybody = sum(weights) / (weights[0] + least) / coverage
    sizes = [int(np.ceil(fixed * stretch * everybody)) for stretch in (1.0, half, wanted)]
    days = [size / units_per_day if units_per_day else None for size in sizes]
    return UnitsNeeded(int(np.ceil(fixed)), *sizes, *days)


@lru_cache(maxsize=64)
def _stretch(alpha: float, level: float, power: float) -> tuple[float, float]:
    """How many times a fixed test's size the sequence takes in half of all cases, and in `power` of them."""
    rng = np.random.default_rng(0)
    times = np.geomspace(0.02, LONGEST, 500)
    drift = _quantile(1 - level / 2) + _quantile(power)
    steps = rng.normal(size=(WALKS, times.size)) * np.sqrt(np.diff(times, prepend=0.0))
    mean = drift + np.cumsum(steps, axis=1) / times
    scale = 1000.0  # units in a fixed test: a sequence knows only how many times N* it is at
    width = sequences.half_width(1 / np.sqrt(times), times * scale, alpha=level, tuned=alpha, planned=scale)
    beyond = np.abs(mean) > width
    stops = np.where(beyond.any(axis=1), times[beyond.argmax(axis=1)], LONGEST)
    return float(np.quantile(stops, 0.5)), float(np.quantile(stops, power))


def _quantile(share: float) -> float:
    from scipy.special import ndtri  # 0.25 s of import

    return float(ndtri(share))


def _rate_variance(rate: float) -> float:
    return rate * (1 - rate)


def _check(base: float, gap: float, sd: float | None, alpha: float, power: float) -> None:
    if not np.isfinite(gap) or gap == 0:
        raise InvalidRequest("The effect must be a number other than 0.", param="effect")
    for name, size in (("base", abs(base)), ("effect", max(abs(gap), 1 / abs(gap))), ("sd", sd or 0.0)):
        if not size <= MOST:
            raise InvalidRequest(f"{name} is too large or too small a number.", remedy="Use another unit.", param=name)
    if sd is None and not (0 < base < 1 and 0 < base + gap < 1):
        raise InvalidRequest(
            "A rate lies between 0 and 1, and so must the base with the effect added.",
            remedy="Give the standard deviation as well if the metric is not a rate.",
            param="base",
        )
    if sd is not None and not (np.isfinite(sd) and sd > 0):
        raise InvalidRequest("A standard deviation is greater than 0.", param="sd")
    if not LEAST_ALPHA <= alpha < 1:
        raise InvalidRequest(f"alpha is at least {LEAST_ALPHA:f} and less than 1.", param="alpha")
    if not 0 < power < 1:
        raise InvalidRequest("power lies between 0 and 1.", param="power")


def _check_shape(
    weights: Sequence[float],
    per_unit: float,
    correlation: float,
    coverage: float,
    comparisons: int,
    units_per_day: float | None,
) -> None:
    if len(weights) < 2 or min(weights) <= 0:
        raise InvalidRequest("There must be two weights or more, each greater than 0.", param="weights")
    if per_unit < 1 or not 0 <= correlation <= 1:
        raise InvalidRequest("A unit is measured once or more, with a correlation from 0 to 1.", param="per_unit")
    if not 0 < coverage <= 1:
        raise InvalidRequest("The share of units that are measured is greater than 0, and 1 at most.", param="coverage")
    if units_per_day is not None and not 1 / MOST <= units_per_day <= MOST:
        raise InvalidRequest("The units a day are a number greater than 0.", param="units_per_day")
    if comparisons < 1:
        raise InvalidRequest("There is one comparison at least.", param="comparisons")
