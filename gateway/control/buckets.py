"""Who of an experiment gets which variant, and which units of a layer take part: stretches of [0, 1). Pure.

Every end is a multiple of 2⁻⁴⁰, which floats add and subtract exactly: shares come out equal, and what one experiment
of a layer frees is just what the next one may take. It knows no experiments, no units and no salts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

GRAIN = 2.0**-40

Buckets = tuple[tuple[float, str], ...]
"""(end, variant's name), ends rising to 1."""
Stretch = tuple[float, float]
"""Half-open."""
_Piece = tuple[float, str]
"""(length, variant's name)."""


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
    shrinks gains nothing. Where two such are neighbours their border moves, so that weights that go to and fro move the
    same units to and fro.
    """
    old = [(on_grid(end), name) for end, name in buckets]
    wanted, have = _shares_of(weights), shares(old)
    change = {name: wanted.get(name, 0.0) - have.get(name, 0.0) for name in {**have, **wanted}}
    begins = [0.0, *(end for end, _ in old)]
    pieces = [(end - begin, name) for begin, (end, name) in zip(begins, old, strict=False)]
    return _joined(_cut(_borders_moved(pieces, change), change))


def _borders_moved(pieces: Sequence[_Piece], change: dict[str, float]) -> list[_Piece]:
    """Give of each piece that is to shrink to a neighbour that is to grow. What is done is taken off `change`."""
    done, found = False, list(pieces)
    while not done:
        done = True
        for giver, taker in [(n + 1 - d, n + d) for n in range(len(found) - 1) for d in (0, 1)]:
            (length, loser), (other, gainer) = found[giver], found[taker]
            given = min(length, -change[loser], change[gainer])
            if given > 0:
                change[loser] += given
                change[gainer] -= given
                found[giver], found[taker] = (length - given, loser), (other + given, gainer)
                done = False
        found = [piece for piece in found if piece[0] > 0]
    return found


def _cut(pieces: Sequence[_Piece], change: dict[str, float]) -> Iterator[_Piece]:
    """What is still to be given goes to whoever still is to grow, wherever that one is."""
    for length, name in pieces:
        rest = length
        while rest > 0 and change[name] < 0:
            gainer = next(one for one in change if change[one] > 0)
            given = min(rest, -change[name], change[gainer])
            change[name] += given
            change[gainer] -= given
            rest -= given
            yield given, gainer
        if rest > 0:
            yield rest, name


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
