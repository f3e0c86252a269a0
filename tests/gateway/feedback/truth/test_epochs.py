"""Weights that change on the way: by hand while the world drifts, and by Thompson's dice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from gateway.domain import Metric, MetricKind, Variant
from gateway.experiment import Allocation, Epoch, Evidence, Experiment, Plan, Stage, Sums
from gateway.feedback.allocation import thompson
from tests.gateway.feedback.truth.crowds import ALPHA, compared, ever, naive, p_values

LOOKS = 10


def _booleans(units: Any, happy: Any) -> Sums:
    """Sums of units that say one thing each. Arrays of shape (experiments, looks, epochs)."""
    return Sums(units=units, n=units, s=happy, nn=units, ns=happy, ss=happy)


def _pooled(sums: Sums) -> Sums:
    """As if there had been one epoch."""
    return _booleans(sums.units.sum(axis=-1, keepdims=True), sums.s.sum(axis=-1, keepdims=True))


def _epoch(rng: np.random.Generator, units: int, share: Any, rates: tuple[float, float]) -> list[Any]:
    """(units, happy) of control and arm at each look of one epoch: arrays of shape (experiments, looks)."""
    runs = np.size(share)
    arm = rng.binomial(units // LOOKS, np.reshape(share, (-1, 1)), (runs, LOOKS))
    found = []
    for here, rate in ((units // LOOKS - arm, rates[0]), (arm, rates[1])):
        found += [here.cumsum(axis=1), rng.binomial(here, rate).cumsum(axis=1)]
    return found


def _laid_out(epochs: list[list[Any]]) -> tuple[Sums, Sums]:
    """Control and arm over all looks: an epoch is empty before it began and full when it is over."""
    fields = []
    for which in range(4):
        columns = []
        for at, epoch in enumerate(epochs):
            ticks = epoch[which]
            before, after = (
                np.zeros((len(ticks), LOOKS * at)),
                np.repeat(ticks[:, -1:], LOOKS * (len(epochs) - at - 1), axis=1),
            )
            columns.append(np.concatenate([before, ticks, after], axis=1))
        fields.append(np.stack(columns, axis=-1).astype(float))
    return _booleans(*fields[:2]), _booleans(*fields[2:])


def test_a_re_weighting_while_the_world_drifts_fools_the_pooled_figure_and_not_the_stratified_one():
    """Simpson's trap: on good days most users are in one arm, on bad days in the other. The arms are the same."""
    rng = np.random.default_rng(30)
    days = [(0.1, 0.2), (0.3, 0.35), (0.6, 0.5), (0.9, 0.65)]
    epochs = [_epoch(rng, 500, np.full(1000, share), (rate, rate)) for share, rate in days]
    control, arm = _laid_out(epochs)
    ours, pooled = compared(arm, control), compared(_pooled(arm), _pooled(control))
    rates = {"pooled": ever(p_values(pooled) < ALPHA), "ours": ever(p_values(ours) < ALPHA)}
    print(
        f"\nSimpson: {rates}; at the end pooled {pooled.value[:, -1].mean():+.3f}, ours {ours.value[:, -1].mean():+.4f}"
    )
    assert rates["ours"] <= ALPHA and rates["pooled"] > 0.9
    assert abs(ours.value[:, -1].mean()) < 0.005 and pooled.value[:, -1].mean() > 0.1


def test_a_real_difference_is_measured_right_under_the_same_trap():
    rng = np.random.default_rng(31)
    days = [(0.9, 0.2), (0.5, 0.4), (0.1, 0.6)]  # the better arm gets the bad days
    control, arm = _laid_out([_epoch(rng, 2000, np.full(400, s), (rate, rate + 0.1)) for s, rate in days])
    ours, pooled = compared(arm, control).value[:, -1], compared(_pooled(arm), _pooled(control)).value[:, -1]
    assert ours.mean() == pytest.approx(0.1, abs=0.003)
    assert pooled.mean() < -0.1, "pooled, the better arm looks worse"


def _experiment() -> Experiment:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    variants = (Variant("control", 1, None), Variant("new", 1, None))
    plan = Plan(primary="liked", allocation=Allocation.THOMPSON)
    epochs = tuple(Epoch(at, now, (1, 1)) for at in range(1, 7))
    return Experiment("e", "t", "a", "n", variants, Stage.EXPERIMENT, now, plan, epochs=epochs)


def _evidence(epochs: list[list[Any]], run: int) -> Evidence:
    found: dict[tuple[str, int, str], Sums] = {}
    for at, epoch in enumerate(epochs):
        for which, name in enumerate(("control", "new")):
            units, happy = (int(epoch[2 * which + part][run, -1]) for part in (0, 1))
            found["liked", at, name] = _booleans(units, happy)
    return Evidence({key[1:]: sums.units for key, sums in found.items()}, found)


def _adapted(rng: np.random.Generator, drift: list[float], *, runs: int, lead: float) -> tuple[Sums, Sums, Any]:
    """Experiments whose weights `thompson` draws anew after each epoch; also the arm's last share."""
    experiment, metrics = _experiment(), {"liked": Metric("t", "liked", MetricKind.BOOLEAN)}
    share, epochs = np.full(runs, 0.5), []
    for rate in drift:
        epochs.append(_epoch(rng, 400, share, (rate, rate + lead)))
        drawn = [thompson(experiment, metrics, _evidence(epochs, run), rng) for run in range(runs)]
        share = np.array([0.5 if one is None else one[1] for one in drawn])
    return (*_laid_out(epochs), share)


@pytest.mark.long
def test_weights_drawn_by_thompson_do_not_make_a_win():
    rng = np.random.default_rng(32)
    control, arm, _ = _adapted(rng, [0.3, 0.5, 0.4, 0.6, 0.5, 0.3], runs=150, lead=0.0)
    ours, pooled = compared(arm, control), compared(_pooled(arm), _pooled(control))
    rates = {
        "naive": ever(naive(pooled)),
        "pooled": ever(p_values(pooled) < ALPHA),
        "ours": ever(p_values(ours) < ALPHA),
    }
    print(f"\nThompson: {rates}")
    assert rates["ours"] <= ALPHA < rates["naive"]


@pytest.mark.long
def test_weights_drawn_by_thompson_go_to_the_better_arm_and_leave_the_floor_to_the_other():
    rng = np.random.default_rng(33)
    _, _, share = _adapted(rng, [0.3, 0.3, 0.3, 0.3], runs=40, lead=0.1)
    assert np.median(share) > 0.9 and share.max() <= 0.95 + 1e-9


def test_thompson_keeps_what_is_until_every_arm_has_enough():
    rng = np.random.default_rng(34)
    units = {"control": 150, "new": 99}
    sums = {("liked", 0, name): _booleans(n, 40) for name, n in units.items()}
    few = Evidence({(0, name): n for name, n in units.items()}, sums)
    metrics = {"liked": Metric("t", "liked", MetricKind.BOOLEAN)}
    assert thompson(_experiment(), metrics, few, rng) is None
    drawn = thompson(_experiment(), metrics, few, rng, least_units=50)
    assert drawn is not None and sum(drawn) == pytest.approx(1) and min(drawn) >= 0.05
