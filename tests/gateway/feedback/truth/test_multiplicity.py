"""Many goals and candidates at once: Holm keeps the chance that any of them is called wrongly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.feedback import sequences
from tests.gateway.feedback.truth.crowds import ALPHA, compared, ever, ones, p_values


def _all(arms: Any, control: Any) -> Any:
    """p-values of shape (experiments, looks, comparisons): each arm against the one control, on each goal."""
    return np.stack(
        [p_values(compared(ones(arm[g], 20), ones(control[g], 20))) for arm in arms for g in range(len(control))],
        axis=-1,
    )


@pytest.mark.long
@pytest.mark.parametrize("real", [0, 2])
def test_no_goal_of_no_candidate_is_called_wrongly_more_often_than_alpha(real: int):
    """Three candidates, two goals; the first `real` candidates are truly better in the first goal."""
    rng = np.random.default_rng(40)
    rates = np.full((4, 2), 0.3)
    rates[1 : 1 + real, 0] = 0.45
    arms = rng.random((4, 2, 1000, 1000), dtype=np.float32) < rates[:, :, None, None]
    p = _all(arms[1:], arms[0])
    same = (rates[1:] == rates[0]).ravel()
    ours, single = sequences.holm(p)[..., same] <= ALPHA, p[..., same] <= ALPHA
    found = [ever(one.any(axis=-1)) for one in (single, ours)]
    print(f"\n{real} of 6 comparisons differ: some other called, uncorrected {found[0]:.3f}, Holm {found[1]:.3f}")
    assert found[1] <= ALPHA
    if real:
        assert (sequences.holm(p)[:, -1, ~same] <= ALPHA).mean() > 0.95, "what differs is found"
    else:
        assert found[0] > found[1]
