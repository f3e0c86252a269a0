"""Who of an experiment gets which variant, and which units of a layer take part: stretches of [0, 1). Pure.

Every end is a multiple of 2⁻⁴⁰, which floats add and subtract exactly: shares come out equal, and what one experiment
of a layer frees is just what the next one may take. It knows no experiments, no units and no salts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

GRAIN = 2.0**-40

Buckets = tuple[tuple[float, str], ...]
"""(end, variant's name), ends rising to 1."""
Stretch = tuple[float, float]
"""Half-open."""


def on_grid(number: float) -> float:
    """The nearest place where a stretch may end."""
    return round(number / GRAIN) * GRAIN


def dealt(weights: Mapping[str, float]) -> Buckets:
    """One stretch for each variant with a weight, in their order."""
    return _joined((share, name) for name, share in _shares_of(weights).items())


def shares(buckets: Iterable[tuple[float, str]]) -> dict[str, float]:
    """How much of [0, 1) each variant has, by name."""
    found: dict[str, float] = {}
    begin = 0.0
    for end, name in buckets:
        found[name] = found.get(name, 0.0) + end - begin
        begin = end
    return found


def rebucket(buckets: Sequence[tuple[float, str]], weights: Mapping[str, float]) -> Buckets:
    """The buckets whose shares are the `weights`' (relative, not all 0; by name), moving as little as possible.

    What moves is the total variation distance between old and new shares: a variant that grows loses nothing, one that
    shrinks gains nothing.
    """
    wanted, old = _shares_of(weights), [(on_grid(end), name) for end, name in buckets]
    have = shares(old)
    surplus = {name: share - wanted.get(name, 0.0) for name, share in have.items()}
    growing = [(name, share - have.get(name, 0.0)) for name, share in wanted.items() if share > have.get(name, 0.0)]
    pieces: list[tuple[float, str]] = []
    begin = 0.0
    for end, name in old:
        length, begin = end - begin, end
        given = min(length, max(surplus[name], 0.0))
        surplus[name] -= given
        pieces.append((length - given, name))
        while given > 0:
            gainer, lacking = growing.pop(0)
            taken = min(given, lacking)
            pieces.append((taken, gainer))
            given -= taken
            if lacking > taken:
                growing.insert(0, (gainer, lacking - taken))
    return _joined(pieces)


def free(taken: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """What nobody of a layer has, in order. `taken` is disjoint."""
    found, begin = [], 0.0
    for low, high in sorted(taken):
        if low > begin:
            found.append((begin, low))
        begin = high
    return tuple([*found, (begin, 1.0)] if begin < 1 else found)


def grown(own: Sequence[Stretch], coverage: float, others: Iterable[Stretch]) -> tuple[Stretch, ...] | None:
    """`own` and as much of what is free beside `others` as makes `coverage` of [0, 1); None if there is not enough.

    The lowest free places come first, so that what was freed is filled again.
    """
    missing = on_grid(coverage) - measure(own)
    found = list(own)
    for low, high in free([*own, *others]):
        if missing <= 0:
            break
        end = min(high, low + missing)
        found.append((low, end))
        missing -= end - low
    return None if missing > 0 else _merged(found)


def measure(stretches: Iterable[Stretch]) -> float:
    """Their lengths together."""
    return math.fsum(high - low for low, high in stretches)


def _shares_of(weights: Mapping[str, float]) -> dict[str, float]:
    """On the grid, in the order of `weights`, making exactly 1: the largest takes what rounding left."""
    total = math.fsum(weights.values())
    found = {name: on_grid(weight / total) for name, weight in weights.items()}
    largest = max(found, key=lambda name: found[name])
    found[largest] += 1.0 - math.fsum(found.values())
    return {name: share for name, share in found.items() if share > 0}


def _joined(pieces: Iterable[tuple[float, str]]) -> Buckets:
    """Lengths to ends; neighbours of one variant become one."""
    found: list[tuple[float, str]] = []
    end = 0.0
    for length, name in pieces:
        if length > 0:
            end += length
            if found and found[-1][1] == name:
                found.pop()
            found.append((end, name))
    return tuple(found)


def _merged(stretches: Iterable[Stretch]) -> tuple[Stretch, ...]:
    found: list[Stretch] = []
    for low, high in sorted(stretches):
        if found and found[-1][1] == low:
            low = found.pop()[0]
        found.append((low, high))
    return tuple(found)
