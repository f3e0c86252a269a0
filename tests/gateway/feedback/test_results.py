"""An experiment's results against data small enough to count by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from gateway.control.keys import Keys
from gateway.domain import Scope
from gateway.errors import InvalidRequest
from gateway.feedback.results import ExperimentResults, results
from gateway.store.database import Database
from gateway.store.inferences import write_inferences
from tests.gateway.feedback.stories import BEGAN, EXPERIMENT, METRICS, TUNED, Story, begin
from tests.gateway.feedback.truth.judged import interval

HELPFUL, _, STARS, NOTE, _ = METRICS


@pytest.fixture
async def story(db: Database) -> AsyncIterator[Story]:
    yield await begin(db)


async def test_rates_intervals_and_differences_are_those_of_the_units(story: Story):
    """base: ann 1 of 2, bob 0 of 1; tuned: cat 2 of 2, dan 1 of 1, eve 0 of 1."""
    judged = {
        "base": {"ann": [True, False], "bob": [False]},
        "tuned": {"cat": [True, True], "dan": [True], "eve": [False]},
    }
    for variant, users in judged.items():
        for user, values in users.items():
            for value in values:
                await story.said("helpful", value, await story.asked(user, variant))
    found = await results(story.db, EXPERIMENT, HELPFUL)
    for arm in found.variants:
        users = judged[arm.name]
        expected = interval([len(v) for v in users.values()], [sum(v) for v in users.values()], bounded=True)
        assert arm.interval is not None
        assert (arm.mean, *arm.interval) == pytest.approx(expected)
    base, tuned = found.variants
    assert (base.units, base.feedback, base.inferences, base.mean) == (2, 3, 3, pytest.approx(1 / 3))
    assert (tuned.units, tuned.feedback, tuned.inferences, tuned.mean) == (3, 4, 4, pytest.approx(3 / 4))
    assert base.difference is None and tuned.difference is not None
    assert tuned.difference.value == pytest.approx(3 / 4 - 1 / 3)
    assert not tuned.difference.conclusive
    assert (base.share, tuned.share, tuned.planned_share) == (pytest.approx(3 / 7), pytest.approx(4 / 7), 0.5)


async def test_the_latest_word_of_each_source_counts(story: Story):
    inference = await story.asked("ann")
    for value, source in ((True, "user"), (False, "user"), (True, "reviewer"), (False, None), (True, None)):
        await story.said("helpful", value, inference, source=source)
    tuned = (await results(story.db, EXPERIMENT, HELPFUL)).variants[1]
    assert (tuned.feedback, tuned.judged_units, tuned.mean) == (3, 1, pytest.approx(2 / 3))
    assert tuned.interval is None, "one unit tells nothing about the spread of units"


async def test_feedback_on_a_conversation_is_one_judgement_of_the_variant_it_began_with(story: Story):
    for variant in ("tuned", "tuned", "base"):
        await story.asked("ann", variant, episode="talk")
    await story.said("helpful", False, episode_id="talk")
    await story.said("helpful", True, episode_id="talk")
    await story.said("helpful", True, episode_id="a talk of nobody")
    base, tuned = (await results(story.db, EXPERIMENT, HELPFUL)).variants
    assert (base.feedback, tuned.feedback, tuned.mean) == (0, 1, 1.0)


async def test_feedback_that_came_before_its_inference_counts_once_the_row_is_there(story: Story):
    late = story.inference("ann")
    await story.said("helpful", True, late.id)
    assert (await results(story.db, EXPERIMENT, HELPFUL)).variants[1].feedback == 0
    await write_inferences(story.db, [late])
    assert (await results(story.db, EXPERIMENT, HELPFUL)).variants[1].feedback == 1


async def test_a_fallback_is_counted_with_what_was_assigned_and_told_apart_by_what_was_served(story: Story):
    await story.said("helpful", False, await story.asked("ann", "tuned", served="base"))
    await story.asked("bob", "tuned")
    await story.asked("cat", "tuned", served=None, outcome="engine_error", status=502, ttft_ms=None)
    base, tuned = (await results(story.db, EXPERIMENT, HELPFUL)).variants
    assert base.inferences == 0 and base.feedback == 0
    assert tuned.served == {"base": 1, str(TUNED): 1, "none": 1}
    assert (tuned.mean, tuned.operations.errors, tuned.operations.ttft_p50_ms) == (0.0, 1, 20.0)


async def test_pinned_requests_and_other_experiments_and_tenants_are_left_out(story: Story):
    pinned = {"reason": "targeting_match", "experiment": None}
    await story.said("helpful", True, await story.asked("ann", **pinned))
    await story.said("helpful", True, await story.asked("bob", experiment="exp-0"))
    await story.asked("cat", tenant="globex")
    for other in ({"tenant": "globex"}, {"alias": "search"}, {"shadow_of": "another"}, {"reason": "split"}):
        await story.asked("dan", **{**pinned, **other})
    await story.asked("eve", **pinned, created_at=BEGAN - timedelta(seconds=1))
    ended = replace(EXPERIMENT, ended_at=BEGAN + timedelta(hours=1))
    await story.asked("eve", **pinned, created_at=BEGAN + timedelta(hours=2))
    found = await results(story.db, ended, HELPFUL)
    assert (found.inferences, found.pinned, [arm.feedback for arm in found.variants]) == (0, 1, [0, 0])
    assert (await results(story.db, EXPERIMENT, HELPFUL)).pinned == 2


async def test_a_float_metric_has_a_mean_that_no_range_bounds(story: Story):
    values = {"ann": [-3.5], "bob": [40.0, 2.0], "cat": [7.0]}
    for user, stars in values.items():
        for value in stars:
            await story.said("stars", value, await story.asked(user))
    tuned = (await results(story.db, EXPERIMENT, STARS)).variants[1]
    assert tuned.mean == pytest.approx(45.5 / 4) and tuned.interval is not None
    assert (tuned.mean, *tuned.interval) == pytest.approx(interval([1, 2, 1], [-3.5, 42.0, 7.0], bounded=False))


async def test_the_largest_values_that_are_accepted_do_not_overflow(story: Story):
    for user in ("ann", "bob", "cat"):
        for value in (1e12, -1e12):
            await story.said("stars", value, await story.asked(user))
    assert (await results(story.db, EXPERIMENT, STARS)).variants[1].mean == 0.0


async def test_a_metric_of_words_has_no_rate(story: Story):
    with pytest.raises(InvalidRequest, match="comment has no rate"):
        await results(story.db, EXPERIMENT, NOTE)


async def test_without_a_metric_there_is_traffic_and_nothing_else(story: Story):
    await story.said("helpful", True, await story.asked("ann"))
    found = await results(story.db, EXPERIMENT, None)
    assert found.metric is None and [arm.inferences for arm in found.variants] == [0, 1]
    assert all(arm.mean is None for arm in found.variants)


async def test_many_units_agree_with_numpy(story: Story):
    rng = np.random.default_rng(3)
    expected, batch, said = {}, [], []
    for variant in ("base", "tuned"):
        counts = rng.integers(1, 5, 60)
        totals = [int(rng.binomial(n, 0.4)) for n in counts]
        expected[variant] = interval(counts, totals, bounded=True)
        for user, (n, wins) in enumerate(zip(counts, totals, strict=True)):
            asked = [story.inference(f"{variant}-{user}", variant) for _ in range(n)]
            batch += asked
            said += [(one.id, position < wins) for position, one in enumerate(asked)]
    await write_inferences(story.db, batch)
    for inference, value in said:
        await story.said("helpful", value, inference)
    found: ExperimentResults = await results(story.db, EXPERIMENT, HELPFUL)
    for arm in found.variants:
        assert arm.interval is not None
        assert (arm.mean, *arm.interval) == pytest.approx(expected[arm.name])


async def test_what_was_asked_with_a_key_for_evaluations_is_no_users_traffic(story: Story):
    judge = await Keys(story.db).create("acme", [Scope.INFERENCE, Scope.EVALUATE], actor="test")
    await story.said("helpful", True, await story.asked("ann"))
    await story.said("helpful", False, await story.asked("bob", key_id=judge.id))
    found = await results(story.db, EXPERIMENT, HELPFUL)
    assert (found.inferences, found.variants[1].units, found.variants[1].mean) == (1, 1, 1.0)
