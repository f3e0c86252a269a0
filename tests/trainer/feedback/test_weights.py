"""Weights: by propensity, of a mean of 1, and no user over the cap where that can be."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.feedback.judged import answered, thumb
from trainer import feedback
from trainer.feedback import weights
from trainer.settings.rounds import FeedbackSettings


def test_a_variant_that_answered_a_tenth_weighs_as_if_it_had_answered_half():
    few = [answered(n, thumb(n, True), variant="tuned", propensity=0.1) for n in range(10)]
    many = [answered(n, thumb(n, True), variant="base", propensity=0.9) for n in range(10, 100)]
    method = feedback.compile(few + many, FeedbackSettings()).methods["sft"]
    of_variant = Counter[str]()
    for row in method.rows:
        of_variant[row.variant or ""] += row.weight
    assert of_variant["tuned"] == pytest.approx(50) and of_variant["base"] == pytest.approx(50)
    assert method.effective == pytest.approx(36, rel=0.01)


def test_a_variant_without_a_share_is_left_out_and_one_without_rows_is_named():
    judged = [answered(1, thumb(1, True)), answered(2, thumb(2, True), variant="shy", propensity=0.5)]
    found = feedback.compile(judged, FeedbackSettings(shares={"base": 1, "tuned": 1, "shy": 0}))
    assert [row.variant for row in found.rows("kto")] == ["base"]
    assert found.counts[weights.NO_SHARE] == 2  # one row for sft, and one for kto
    assert found.methods["kto"].unseen == ("tuned",)


def test_a_loud_user_is_cut_to_the_cap_and_the_mean_stays_one():
    loud = [answered(n, thumb(n, True), unit="loud") for n in range(40)]
    others = [answered(n, thumb(n, True)) for n in range(100, 140)]
    method = feedback.compile(loud + others, FeedbackSettings(user_share=0.05)).methods["kto"]
    assert (method.users, method.capped, method.even) == (41, 1, False)
    assert sum(row.weight for row in method.rows if row.unit == "loud") == pytest.approx(0.05 * 80)
    assert sum(row.weight for row in method.rows) == pytest.approx(80)


def test_fewer_users_than_fit_under_the_cap_weigh_the_same():
    loud = [answered(n, thumb(n, True), unit="loud") for n in range(9)]
    method = feedback.compile([*loud, answered(50, thumb(50, True))], FeedbackSettings(user_share=0.1)).methods["kto"]
    assert method.even and method.largest == pytest.approx(0.5)
    assert method.rows[-1].weight == pytest.approx(5)


@given(st.dictionaries(st.text(max_size=3), st.floats(1e-6, 1e6), min_size=1, max_size=40), st.floats(0.01, 1))
def test_shares_sum_to_one_and_keep_the_cap(raw: dict[str, float], most: float):
    total = sum(raw.values())
    held, cut = weights.cap({user: weight / total for user, weight in raw.items()}, most)
    assert sum(held.values()) == pytest.approx(1)
    assert max(held.values()) <= max(most, 1 / len(raw)) * (1 + 1e-9)
    assert 0 <= cut <= len(raw)
    users = sorted(raw, key=lambda user: raw[user])
    assert all(held[low] <= held[high] * (1 + 1e-9) for low, high in pairwise(users))
