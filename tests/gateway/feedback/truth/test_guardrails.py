"""Guardrails, watched all the time: at the margin itself a breach is called too rarely to matter, and so is "held"."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.feedback import sequences
from gateway.feedback.estimation import Contrast
from tests.gateway.feedback.truth.crowds import ALPHA, BURN_IN, compared, ever, first, ones


def _beyond(found: Contrast, distance: Any, *, burn_in: int = BURN_IN) -> Any:
    late = np.minimum(found.arm_units, found.control_units) >= burn_in
    return late & (sequences.one_sided_p(distance, found.se, found.units, tuned=ALPHA, planned=1000) < ALPHA)


def _rates(rng: np.random.Generator, control: float, arm: float, *, runs: int, units: int = 4000) -> Contrast:
    return compared(*(ones(rng.random((runs, units), dtype=np.float32) < rate, 20) for rate in (arm, control)))


@pytest.mark.long
@pytest.mark.parametrize(("control", "margin"), [(0.02, 0.02), (0.0, 0.01), (0.3, 0.05), (0.01, 0.02)])
def test_at_the_margin_neither_a_breach_nor_that_it_holds_is_called(control: float, margin: float):
    """An error rate that is worse by exactly what is allowed."""
    found = _rates(np.random.default_rng(20), control, control + margin, runs=1000)
    breached, held = ever(_beyond(found, found.value - margin)), ever(_beyond(found, margin - found.value))
    print(f"\nrate {control}, margin {margin}: breached {breached:.3f}, held {held:.3f}")
    assert breached <= ALPHA and held <= ALPHA


@pytest.mark.long
def test_the_same_with_a_relative_margin_on_milliseconds_in_a_canary_of_one_in_ten():
    """So long a tail in so small an arm asks for a longer burn-in than 100: the limit of anything asymptotic."""
    rng = np.random.default_rng(21)
    control, arm = rng.lognormal(6, 0.7, (1000, 9 * 1200)), rng.lognormal(6, 0.7, (1000, 1200)) * 1.1
    found = compared(ones(arm, 10), ones(control, 90), bounded=False, factor=1.1)
    breached, held = ever(_beyond(found, found.value)), ever(_beyond(found, -found.value))
    later = ever(_beyond(found, -found.value, burn_in=250))
    print(f"\nmilliseconds, 10 % allowed: breached {breached:.3f}, held {held:.3f}, with a burn-in of 250 {later:.3f}")
    assert breached <= ALPHA and later <= ALPHA and held <= 1.5 * ALPHA


def test_a_real_breach_is_called_within_a_few_hundred_units_and_a_healthy_arm_is_let_through():
    rng = np.random.default_rng(22)
    bad, same = _rates(rng, 0.02, 0.12, runs=200, units=2000), _rates(rng, 0.02, 0.02, runs=200, units=2000)
    called, passed = (
        first(_beyond(bad, bad.value - 0.02), bad.units),
        first(_beyond(same, 0.02 - same.value), same.units),
    )
    print(
        f"\n2 % -> 12 % errors: half by {np.median(called):,.0f} units; the same: half held by {np.median(passed):,.0f}"
    )
    assert np.mean(called <= 2000) >= 0.95
    assert np.mean(passed <= 4000) >= 0.9 and not _beyond(same, same.value - 0.02).any()
