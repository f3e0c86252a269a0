"""What watching costs: where a textbook's test of n units would do, how long does the sequence take?"""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower, TTestIndPower

from gateway.errors import InvalidRequest
from gateway.feedback.power import UnitsNeeded, units_needed
from tests.gateway.feedback.truth.crowds import ALPHA, compared, first, ones, p_values

pytestmark = pytest.mark.long


def _stops(plan: UnitsNeeded, arms: list[np.ndarray], every: int, *, bounded: bool) -> np.ndarray:
    found = compared(ones(arms[1], every), ones(arms[0], every), bounded=bounded)
    return first(p_values(found, planned=plan.planned_units) < ALPHA, found.units)


@pytest.mark.parametrize(("base", "effect"), [(0.3, 0.06), (0.3, 0.03), (0.5, 0.1), (0.05, 0.02)])
def test_half_of_the_experiments_are_conclusive_by_1_3_times_a_fixed_test_s_size(base: float, effect: float):
    rng = np.random.default_rng(60)
    plan = units_needed(base=base, effect=effect)
    every = max(5, plan.fixed_units // 200)
    shape = (600, every * (2 * plan.fixed_units // every))
    arms = [rng.random(shape, dtype=np.float32) < rate for rate in (base, base + effect)]
    stops = _stops(plan, arms, every, bounded=True)
    half, enough = float(np.median(stops)), float(np.mean(stops <= plan.units))
    print(f"\n{base} + {effect}: fixed {plan.fixed_units:,}, half by {half:,.0f} ({half / plan.fixed_units:.2f} x),"
          f" planned {plan.typical_units:,}; {enough:.0%} by {plan.units:,}")  # fmt: skip
    assert half <= 1.3 * plan.fixed_units
    assert half == pytest.approx(plan.typical_units, rel=0.15)
    assert enough == pytest.approx(0.8, abs=0.06), "the power that was asked for"


def test_the_same_for_numbers():
    rng = np.random.default_rng(61)
    plan = units_needed(base=100, effect=-5, sd=30)
    arms = [rng.normal(mean, 30, (800, 2 * plan.fixed_units // 10 * 10)) for mean in (100, 95)]
    stops = _stops(plan, arms, 10, bounded=False)
    assert np.median(stops) <= 1.3 * plan.fixed_units
    assert np.mean(stops <= plan.units) == pytest.approx(0.8, abs=0.06)


def test_the_fixed_size_is_the_textbook_s():
    number = units_needed(base=100, effect=5, sd=30, power=0.9, alpha=0.01)
    assert number.fixed_units == pytest.approx(2 * TTestIndPower().solve_power(5 / 30, alpha=0.01, power=0.9), rel=0.01)
    rate = units_needed(base=0.3, effect=0.2, relative=True, weights=(3, 1))
    size = (
        0.06 / np.sqrt(0.75 * 0.36 * 0.64 + 0.25 * 0.3 * 0.7) * np.sqrt(1)
    )  # the variances weigh by the other's share
    textbook = NormalIndPower().solve_power(size, alpha=0.05, power=0.8, ratio=1 / 3)
    assert rate.fixed_units == pytest.approx(textbook * 4 / 3, rel=0.01)


def test_more_judgements_fewer_who_judge_and_more_arms_move_the_size_as_they_should():
    plain = units_needed(base=0.3, effect=0.06, units_per_day=100)
    assert units_needed(base=0.3, effect=0.06, per_unit=10).fixed_units == pytest.approx(plain.fixed_units / 10, abs=1)
    alike = units_needed(base=0.3, effect=0.06, per_unit=10, correlation=1)
    assert alike.fixed_units == plain.fixed_units, "ten times the same is once"
    silent = units_needed(base=0.3, effect=0.06, coverage=0.25)
    assert silent.planned_units == plain.planned_units and silent.fixed_units == pytest.approx(
        4 * plain.fixed_units, abs=4
    )
    three = units_needed(base=0.3, effect=0.06, weights=(1, 1, 1), comparisons=2)
    assert three.fixed_units > 1.5 * plain.fixed_units
    assert plain.days == pytest.approx(plain.units / 100)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"effect": 0}, "effect"),
        ({"base": 0.9, "effect": 0.2}, "base"),
        ({"sd": 0}, "sd"),
        ({"alpha": 1}, "alpha"),
        ({"power": 0}, "power"),
        ({"weights": (1,)}, "weights"),
        ({"per_unit": 0.5}, "per_unit"),
        ({"coverage": 0}, "coverage"),
        ({"comparisons": 0}, "comparisons"),
        ({"units_per_day": -1}, "units_per_day"),
        ({"units_per_day": 1e-320}, "units_per_day"),
        ({"alpha": 1e-320}, "alpha"),
        ({"effect": 1e-200}, "effect"),
        ({"effect": 1e200, "sd": 1}, "effect"),
        ({"base": -1e300, "sd": 1}, "base"),
        ({"sd": 1e200}, "sd"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_its_name(wrong: dict[str, float], param: str):
    with pytest.raises(InvalidRequest) as refused:
        units_needed(**({"base": 0.3, "effect": 0.06} | wrong))
    assert refused.value.param == param
