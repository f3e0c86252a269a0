"""A slow arm loses the judgements of those who would have complained: it must be blocked, not won."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.experiment import Guardrail, Plan, Sums
from gateway.feedback import coverage, estimation, sequences
from gateway.feedback.verdict import judge
from gateway.findings import Block, Word
from tests.gateway.feedback.truth.crowds import ALPHA, BURN_IN, compared, ever, first, ones, p_values
from tests.gateway.feedback.truth.judged import METRICS, evidence, experiment, shares

PLANNED = 1000
EVERY, LOOKS = 50, 100


def _arm(rng: np.random.Generator, *, runs: int, heard: float, rate: float, lost: tuple[float, float]) -> Any:
    """(units heard from, happy ones) at each look, of units of which `heard` would speak and `rate` be happy, if the
    arm did not lose `lost` of the (happy, unhappy) ones. Shape (2, runs, looks)."""
    happy, sad = heard * rate * (1 - lost[0]), heard * (1 - rate) * (1 - lost[1])
    drawn = rng.multinomial(EVERY, [happy, sad, 1 - happy - sad], (runs, LOOKS)).cumsum(axis=1)
    return np.stack([drawn[..., 0] + drawn[..., 1], drawn[..., 0]]).astype(float)


def _watched(
    rng: np.random.Generator, *, heard: float, rate: float, lost: tuple[float, float], runs: int, lead: float = 0
) -> Any:
    """(naive leads, alarms, wins as `judge` gives them) at each look, through the functions that it calls."""
    arms = [
        _arm(rng, runs=runs, heard=heard, rate=r, lost=loss)[..., None]
        for r, loss in ((rate, (0, 0)), (rate + lead, lost))
    ]
    told = [estimation.arm(Sums(units=n, n=n, s=k, nn=n, ns=k, ss=k), bounded=True) for n, k in arms]
    found = estimation.contrast(told[1], told[0])
    exposed = np.broadcast_to(EVERY * np.arange(1.0, LOOKS + 1)[:, None], arms[0][0].shape)
    heard_from = coverage.compare(arms[1][0], exposed, arms[0][0], exposed)
    alarm = p_values(heard_from, alpha=coverage.ALARM, planned=PLANNED) < coverage.ALARM
    leads = (p_values(found, planned=PLANNED) <= ALPHA) & (found.value > 0)
    low = found.value - sequences.half_width(found.se, found.units, alpha=ALPHA, planned=PLANNED)
    left = coverage.spare(low, heard_from, mean=found.arm, control=found.control, worst=0.0, best=1.0)
    return leads, alarm, leads & ~alarm & (left > 0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("heard", "rate", "lost", "most"),
    [
        (0.5, 0.6, (0.2, 0.5), 0.01),  # an arm that times out: many are lost, and more of the unhappy
        (1.0, 0.6, (0.0, 0.2), 0.01),  # a metric that all units should have
        (0.5, 0.6, (0.1, 0.4), 0.02),
        (0.5, 0.6, (0.0, 0.3), 0.15),  # the worst: only the unhappy are lost
    ],
)
def test_the_lead_of_an_arm_that_loses_complaints_is_seldom_a_win(
    heard: float, rate: float, lost: tuple[float, float], most: float
):
    leads, alarm, wins = _watched(np.random.default_rng(70), heard=heard, rate=rate, lost=lost, runs=1000)
    early = np.mean(first(leads, 1.0 * np.arange(LOOKS)) < first(alarm, 1.0 * np.arange(LOOKS)))
    print(f"\nheard from {heard:.0%}, lost {lost}: leads {ever(leads):.3f}, early {early:.3f}, won {ever(wins):.3f}")
    assert ever(leads) > 0.5, "the trap is one"
    assert ever(wins) <= most


@pytest.mark.long
def test_arms_that_lose_alike_raise_no_alarm_and_a_true_lead_still_wins():
    for heard, runs in ((0.5, 1500), (0.05, 1500), (0.98, 1500)):
        _, alarm, _ = _watched(np.random.default_rng(71), heard=heard, rate=0.6, lost=(0, 0), runs=runs)
        print(f"\nheard from {heard:.0%} in both: alarm {ever(alarm):.4f}")
        assert ever(alarm) <= coverage.ALARM + 1 / runs
    leads, _, wins = _watched(np.random.default_rng(72), heard=0.5, rate=0.5, lost=(0, 0), runs=1000, lead=0.08)
    sizes = 2 * EVERY * np.arange(1, LOOKS + 1)
    longer = np.median(first(wins, sizes)) / np.median(first(leads, sizes))
    print(f"\na true lead: won {ever(wins):.3f} of {ever(leads):.3f}, {longer:.2f} x as late")
    assert ever(wins) > 0.97 * ever(leads) and longer < 1.25


def test_a_slow_arm_is_blocked_by_the_verdict_itself_at_every_look():
    """The same through `judge`, with all that a verdict looks at."""
    rng = np.random.default_rng(73)
    plan = Plan(primary="liked", guardrails=(Guardrail("error_rate", 0.02),), planned_units=PLANNED, burn_in=BURN_IN)
    slow = experiment(plan)
    words = set()
    for _ in range(5):
        arms = [_arm(rng, runs=1, heard=0.5, rate=0.6, lost=lost)[:, 0] for lost in ((0, 0), (0.2, 0.5))]
        for look in range(4, LOOKS, 8):
            units = EVERY * (look + 1)
            liked = {
                name: shares(*(int(one[look]) for one in arm))
                for name, arm in zip(("control", "new"), arms, strict=True)
            }
            errors = {name: shares(units, units // 100) for name in liked}
            told = judge(slow, METRICS, evidence(dict.fromkeys(liked, units), liked=liked, error_rate=errors))
            words.add(told.word)
        assert told.word is Word.BLOCKED and told.blocks == (Block.FEEDBACK_COVERAGE,), told.sentence
    assert Word.SHIP not in words


def test_losing_judgements_at_random_is_seen_too():
    rng = np.random.default_rng(74)
    alarmed = _watched(rng, heard=0.5, rate=0.6, lost=(0.3, 0.3), runs=200)[1]
    assert alarmed[:, -1].mean() > 0.99
    assert compared(ones(np.ones((1, 200)), 200), ones(np.ones((1, 200)), 200)).value[0, 0] == 0.0
