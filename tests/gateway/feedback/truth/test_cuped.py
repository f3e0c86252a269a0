"""A unit's past steadies its present: less variance, the same answer, and no more wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.feedback.estimation import Contrast
from tests.gateway.feedback.truth.crowds import ALPHA, compared, ever, looked, p_values


def _both(
    rng: np.random.Generator, *, runs: int, units: int, alike: float, lead: float = 0.0
) -> tuple[Contrast, Contrast]:
    """Without and with the past. Users lean this way or that; a third are new. `alike` is the correlation of a unit's
    present with its past, where it has one."""
    found = []
    for arm in range(2):
        leaning = rng.normal(0, 1, (runs, units))
        known = rng.random((runs, units)) < 2 / 3
        n, m = rng.integers(1, 6, (runs, units)), rng.integers(1, 6, (runs, units)) * known
        noise = np.sqrt(1 / alike - 1)
        s = n * (leaning + noise * rng.normal(0, 1, (runs, units)) + arm * lead)
        x = m * (leaning + noise * rng.normal(0, 1, (runs, units)))
        found.append(looked(20, n, s, m, x))
    return compared(found[1], found[0], bounded=False), compared(found[1], found[0], bounded=False, steadied=True)


def _spread(values: Any) -> float:
    return float(values[:, -1].var())


@pytest.mark.long
def test_variance_falls_by_what_the_past_explains_and_the_mean_stays():
    plain, steadied = _both(np.random.default_rng(50), runs=1500, units=400, alike=0.7, lead=0.2)
    saved = 1 - _spread(steadied.value) / _spread(plain.value)
    told = float((1 - steadied.se**2 / plain.se**2)[:, -1].mean())
    print(f"\nCUPED: variance down by {saved:.0%}, and the standard error says {told:.0%}")
    assert saved == pytest.approx(told, abs=0.05) and saved > 0.2
    assert steadied.value[:, -1].mean() == pytest.approx(0.2, abs=4 * steadied.se[:, -1].mean() / np.sqrt(1500))


@pytest.mark.long
def test_watching_it_makes_no_more_false_wins():
    plain, steadied = _both(np.random.default_rng(51), runs=1000, units=600, alike=0.7)
    rates = ever(p_values(plain) < ALPHA), ever(p_values(steadied) < ALPHA)
    print(f"\nCUPED, A/A: without {rates[0]:.3f}, with {rates[1]:.3f}")
    assert rates[1] <= ALPHA


def test_a_past_that_explains_nothing_does_no_harm():
    plain, steadied = _both(np.random.default_rng(52), runs=100, units=200, alike=0.01)
    assert (steadied.se <= plain.se + 1e-12).all()
    assert (steadied.se[:, -1] > 0.95 * plain.se[:, -1]).all()
