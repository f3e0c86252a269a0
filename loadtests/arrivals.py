"""When requests arrive and which they are, drawn before a run begins: an open loop does not wait for answers.

Pure functions of a generator; times are seconds after the start, sorted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
Choices = NDArray[np.int32]


def poisson(random: np.random.Generator, *, rate: float, seconds: float) -> Times:
    """Independent arrivals, `rate` a second on average: what many users who do not know of each other make."""
    expected = rate * seconds
    gaps = random.exponential(1 / rate, size=int(expected + 10 * np.sqrt(expected) + 20))
    times = np.cumsum(gaps)
    return times[times < seconds]


def even(*, rate: float, seconds: float) -> Times:
    """One every 1/rate seconds."""
    return np.arange(int(rate * seconds), dtype=np.float64) / rate


def bursts(random: np.random.Generator, *, size: int, every: float, seconds: float, base: float) -> Times:
    """`size` requests at one moment, each `every` seconds, on top of a Poisson stream of `base` a second."""
    waves = np.repeat(np.arange(every, seconds, every, dtype=np.float64), size)
    background = poisson(random, rate=base, seconds=seconds) if base > 0 else np.empty(0)
    return np.sort(np.concatenate([waves, background]))


def zipf(random: np.random.Generator, *, kinds: int, count: int, exponent: float = 1.1) -> Choices:
    """`count` draws out of `kinds`, the k-th likeliest with a weight of k to the minus `exponent`: a few loud, many
    rare, as tenants are."""
    weights = np.arange(1, kinds + 1, dtype=np.float64) ** -exponent
    return random.choice(kinds, size=count, p=weights / weights.sum()).astype(np.int32)


def weighted(random: np.random.Generator, weights: list[float], count: int) -> Choices:
    """`count` draws by relative weight."""
    chances = np.asarray(weights, dtype=np.float64)
    return random.choice(len(weights), size=count, p=chances / chances.sum()).astype(np.int32)


def dealt(count: int, hands: int) -> list[NDArray[np.intp]]:
    """Places 0 … count - 1 dealt out one by one: each of `hands` processes gets an even part of every moment."""
    return [np.arange(hand, count, hands) for hand in range(hands)]
