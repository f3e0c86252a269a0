"""Bounds and p-values that hold at every look at once, for an estimate that is about normal. Pure, and of no metric.

Asymptotic confidence sequences (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, arXiv 2103.06476): an estimate with
standard error `se` after `n` units, of both compared arms together. All arguments may be arrays that broadcast.
`planned` is N*, the `n` at which a sequence is tightest; it is valid at every other, only wider. `tuned` is the alpha
that it is tightest for, which must not depend on the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FAR = 1e9
"""Units after which we stop looking for a conclusion."""


def rho_squared(alpha: float, planned: float) -> float:
    """The tuning parameter that makes the two-sided sequence tightest at `planned` units."""
    bound = -2 * np.log(alpha)
    return float((bound + np.log(bound + 1)) / planned)


def half_width(se: Any, n: Any, *, alpha: float, planned: float, tuned: float | None = None) -> Any:
    """Half the width of the two-sided sequence at level 1 - `alpha`, which `tuned` is where it is not given."""
    grown, scale = _grown(n, rho_squared(tuned or alpha, planned))
    return np.asarray(se) * scale * np.sqrt(np.log(np.sqrt(grown) / alpha))


def p_value(value: Any, se: Any, n: Any, *, tuned: float, planned: float) -> Any:
    """Against 'the truth is 0', two-sided: below `alpha` exactly where the sequence of that alpha excludes 0."""
    grown, scale = _grown(n, rho_squared(tuned, planned))
    return np.minimum(1.0, np.sqrt(grown) * np.exp(-_evidence(value, se, scale)))


def one_sided_width(se: Any, n: Any, *, alpha: float, planned: float) -> Any:
    """How far from the estimate a bound on one side lies: the truth is ever beyond it with chance `alpha` at most."""
    grown, scale = _grown(n, rho_squared(min(2 * alpha, 0.5), planned))
    return np.asarray(se) * scale * np.sqrt(np.log1p(np.sqrt(grown) / (2 * alpha)))


def one_sided_p(value: Any, se: Any, n: Any, *, tuned: float, planned: float) -> Any:
    """Against 'the truth is at most 0': below `tuned` exactly where the bound of that alpha lies above 0."""
    grown, scale = _grown(n, rho_squared(min(2 * tuned, 0.5), planned))
    evidence = np.where(np.asarray(value) > 0, _evidence(value, se, scale), 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        return np.minimum(1.0, np.sqrt(grown) / (2 * np.expm1(evidence)))


def units_until(
    value: float, se: float, n: float, *, alpha: float, tuned: float, planned: float, one_sided: bool = False
) -> float:
    """At how many units `value` would be beyond the sequence if it stays as it is; infinite beyond `FAR`."""
    sizes = np.geomspace(n, max(FAR, n), 2000)
    spread = se * np.sqrt(n / sizes)
    if one_sided:
        width = one_sided_width(spread, sizes, alpha=alpha, planned=planned)
    else:
        width = half_width(spread, sizes, alpha=alpha, planned=planned, tuned=tuned)
    beyond = width < abs(value)
    return float(sizes[np.argmax(beyond)]) if beyond.any() else np.inf


def holm(p_values: Any) -> Any:
    """Adjusted along the last axis so that, all together, anything is rejected wrongly at alpha with chance alpha at
    most, whichever alpha."""
    raw = np.asarray(p_values, dtype=float)
    order = np.argsort(raw, axis=-1, kind="stable")
    steps = np.take_along_axis(raw, order, axis=-1) * np.arange(raw.shape[-1], 0, -1)
    adjusted = np.empty_like(raw)
    np.put_along_axis(adjusted, order, np.minimum(1.0, np.maximum.accumulate(steps, axis=-1)), axis=-1)
    return adjusted


def _grown(n: Any, rho2: float) -> tuple[Any, Any]:
    """n rho² + 1, and the number of standard errors that one unit of sqrt(log evidence) is worth."""
    grown = np.maximum(np.asarray(n, dtype=float), 1.0) * rho2 + 1
    return grown, np.sqrt(2 * grown / (grown - 1))


def _evidence(value: Any, se: Any, scale: Any) -> Any:
    """The exponent of the e-value. No spread at all makes a difference certain, and no difference no evidence."""
    distance, spread = np.abs(np.asarray(value, dtype=float)), np.asarray(se, dtype=float) * scale
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(distance > 0, (distance / spread) ** 2, 0.0)
