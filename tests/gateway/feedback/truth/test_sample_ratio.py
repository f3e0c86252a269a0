"""The sample-ratio test, looked at all the time: quiet where the weights are kept, awake where units are lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from gateway.feedback.sample_ratio import ALARM, log_evidence, p_value
from tests.gateway.feedback.truth.crowds import ever, first


def _alarms(counts: Any, weights: Any) -> Any:
    return log_evidence(counts, weights) > -np.log(ALARM)


@pytest.mark.long
@pytest.mark.parametrize("weights", [(1, 1), (95, 5), (2, 1, 1)])
def test_right_weights_raise_no_alarm_and_a_chi_square_test_watched_like_that_does(weights: tuple[int, ...]):
    rng = np.random.default_rng(10)
    shares = np.array(weights) / sum(weights)
    counts = rng.multinomial(80, shares, (2000, 250)).cumsum(axis=1)
    expected = counts.sum(axis=2, keepdims=True) * shares
    chi_square = stats.chi2.sf(((counts - expected) ** 2 / expected).sum(axis=2), len(weights) - 1) < ALARM
    rates = ever(chi_square), ever(_alarms(counts, weights))
    print(f"\nsample ratio {weights}: chi-square {rates[0]:.4f}, ours {rates[1]:.4f}")
    assert rates[1] <= ALARM < rates[0]


@pytest.mark.parametrize(("lost", "within"), [(0.02, 400_000), (0.1, 20_000), (0.5, 1500)])
def test_an_arm_that_loses_units_is_caught(lost: float, within: int):
    rng = np.random.default_rng(11)
    step = within // 400
    arm = rng.binomial(step, (1 - lost) / (2 - lost), (500, 400)).cumsum(axis=1)
    units = step * np.arange(1, 401)
    caught = first(_alarms(np.stack([units - arm, arm], axis=-1), (1, 1)), units)
    half, most = np.quantile(caught, (0.5, 0.95))
    print(f"\n{lost:.0%} of one arm lost: half caught by {half:,.0f} units of both, 95 % by {most:,.0f}")
    assert np.mean(caught <= within) >= 0.95


def test_a_change_of_weights_begins_a_new_test_and_forgets_nothing():
    fair, skewed = ([5000, 5000], (1, 1)), ([9000, 1000], (9, 1))
    assert p_value([fair, skewed]) == 1.0
    assert p_value([([14_000, 6000], (1, 1))]) < ALARM, "the same units as if the weights had never changed"
    half = ([10_300, 9700], (1, 1))
    assert p_value([half, half, half, half]) < p_value([half]), "evidence of several epochs adds up"
    assert p_value([fair, ([500, 0], (1, 0))]) == 1.0, "an arm without weight is no part of it"
    assert p_value([]) == 1.0
