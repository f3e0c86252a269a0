"""What limits may be, and what a change makes of them. It asks nobody: limits and changes in, limits out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from types import MappingProxyType

from gateway.domain import Limits
from gateway.errors import InvalidRequest

MOST = {
    "requests_per_minute": 10**8,
    "tokens_per_minute": 10**12,
    "concurrent_requests": 10**6,
    "tokens_per_day": 10**15,
    "tokens_per_month": 10**15,
}
"""By name, the largest number allowed: far above any machine, and exact in the counters' floating point (2**53)."""

MOST_WEIGHT = 1000.0

LimitChanges = Mapping[str, int | None]
"""By name, what is to change; None removes a limit."""

UNCHANGED: LimitChanges = MappingProxyType({})

assert MOST.keys() == {field.name for field in fields(Limits)}  # a new limit needs its bound here


def amended(limits: Limits | None, changes: LimitChanges | None) -> Limits | None:
    """The limits after the changes; `changes` None removes them all. None when none is left: then nothing is counted.

    Raises `InvalidRequest` for a limit that is no whole number in its range.
    """
    if changes is None:
        return None
    for name, value in changes.items():
        _check(name, value)
    after = {**(asdict(limits) if limits else {}), **changes}
    return Limits(**after) if any(value is not None for value in after.values()) else None


def check_weight(weight: float) -> None:
    """Raises `InvalidRequest` unless it is a share that a queue can give."""
    if not (math.isfinite(weight) and 0 < weight <= MOST_WEIGHT):
        raise InvalidRequest(f"A weight is a number above 0, up to {MOST_WEIGHT:g}.", param="weight")


def _check(name: str, value: int | None) -> None:
    most = MOST.get(name)
    if most is None:
        raise InvalidRequest(f"There is no limit `{name[:80]}`.", remedy=f"There are: {', '.join(MOST)}.", param=name)
    if value is not None and not (type(value) is int and 1 <= value <= most):
        raise InvalidRequest(
            f"The limit `{name}` is a whole number from 1 to {most}.",
            remedy="Give null to remove it; to shut a tenant out, revoke its keys.",
            param=f"limits.{name}",
            code="integer_out_of_range",
        )
