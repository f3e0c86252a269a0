"""The judged export: each judged answer once, with everything that was said of it and still counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from adapters.judgements import Judged, Other, read_judged
from gateway.control.metrics import Metrics
from gateway.domain import Metric, MetricKind
from gateway.errors import Conflict, InvalidRequest, NotFound
from gateway.feedback.export import examples, judged
from gateway.feedback.results import results
from gateway.store.database import Database
from gateway.store.exports import PAGE, SPAN
from gateway.store.inferences import write_inferences
from tests.gateway.feedback.stories import BEGAN, EXPERIMENT, TUNED, Story, begin

BETTER = Metric("acme", "better", MetricKind.PREFERENCE)


@pytest.fixture
async def story(db: Database) -> AsyncIterator[Story]:
    one = await begin(db)
    await Metrics(db).declare(BETTER, actor="test")
    yield one


async def exported(story: Story, **narrowed: Any) -> list[Judged]:
    return [one async for one in judged(story.db, "acme", **narrowed)]


async def test_an_answer_comes_once_with_all_that_counts_in_the_order_of_arrival(story: Story):
    inference = await story.asked("ann", propensity=0.25, episode="talk")
    said = [
        await story.said("helpful", False, inference, source="end-user", comment="meh"),
        await story.said("stars", 2, inference),
        await story.said("helpful", True, inference, source="reviewer", correction="the ideal answer"),
        await story.said("escalated", True, episode_id="talk"),
        await story.said("note", "too long", inference),
        await story.said("ideal", "short", inference),
    ]
    (one,) = await exported(story)
    assert (one.inference_id, one.answer, one.complete, one.messages) == (
        inference,
        "an answer to ann",
        True,
        [{"role": "user", "content": "ann asks"}],
    )
    assert (one.alias, one.variant, one.adapter, one.propensity) == ("support", "tuned", str(TUNED), 0.25)
    assert (one.experiment, one.episode) == (EXPERIMENT.id, "talk")
    assert [each.id for each in one.feedback] == said
    assert [(each.kind, each.value) for each in one.feedback] == [
        ("boolean", False),
        ("float", 2.0),
        ("boolean", True),
        ("boolean", True),
        ("comment", "too long"),
        ("demonstration", "short"),
    ]
    assert [each.about for each in one.feedback] == [*["inference"] * 3, "episode", *["inference"] * 2]
    assert [each.optimize for each in one.feedback] == ["max", "max", "max", "min", "max", "max"]
    assert (one.feedback[0].source, one.feedback[0].comment) == ("end-user", "meh")
    assert one.feedback[2].correction == "the ideal answer"


async def test_of_a_metric_and_source_the_latest_word_counts_on_the_answer_and_on_its_conversation_each(story: Story):
    inference = await story.asked("ann", episode="talk")
    await story.said("helpful", False, inference)
    await story.said("helpful", False, episode_id="talk")
    latest = [await story.said("helpful", True, inference), await story.said("helpful", True, episode_id="talk")]
    other = await story.said("helpful", False, inference, source="reviewer")
    (one,) = await exported(story)
    assert [each.id for each in one.feedback] == [*latest, other]


async def test_a_preference_shows_the_answer_that_lost_and_whether_both_answered_the_same(story: Story):
    asked = [{"role": "user", "content": "a question"}]
    winner, loser = await story.asked("ann", messages=asked), await story.asked("bob", messages=asked, answer="no")
    elsewhere = await story.asked("cat", answer="other")
    said = [await story.said("better", f"chatcmpl-{lost}", winner) for lost in (loser, elsewhere)]
    (one,) = await exported(story)
    assert [each.id for each in one.feedback] == said
    assert [each.value for each in one.feedback] == [loser, elsewhere]
    assert [each.over for each in one.feedback] == [
        Other(inference_id=loser, answer="no", same_prompt=True),
        Other(inference_id=elsewhere, answer="other", same_prompt=False),
    ]


@pytest.mark.parametrize(
    "changed", [{"outcome": "disconnected"}, {"messages": None, "answer": None}, {"shadow_of": "0" * 44}, None]
)
async def test_an_answer_that_lost_shows_only_where_it_was_given_whole_and_is_kept(story: Story, changed: Any):
    winner = await story.asked("ann")
    loser = story.inference("bob", **(changed or {}))
    if changed is not None:  # else it is not written yet
        await write_inferences(story.db, [loser])
    await story.said("better", loser.id, winner)
    (one,) = await exported(story)
    assert one.feedback[0].over == Other(inference_id=loser.id, answer=None, same_prompt=False)


async def test_the_same_comparison_said_again_counts_once_and_one_about_another_loser_beside_it(story: Story):
    winner, first, second = [await story.asked(user) for user in ("ann", "bob", "cat")]
    await story.said("better", first, winner)
    latest = [await story.said("better", first, winner), await story.said("better", second, winner)]
    (one,) = await exported(story)
    assert [each.id for each in one.feedback] == latest


async def test_a_preference_needs_two_answers_of_the_tenant_and_no_conversation(story: Story):
    winner, theirs = await story.asked("ann"), await story.asked("bob", tenant="globex")
    for foreign in (theirs, "made up", "0" * 44):
        with pytest.raises(NotFound) as unknown:
            await story.said("better", foreign, winner)
        assert unknown.value.param == "value" and foreign not in unknown.value.message
    for wrong in ({"value": f"chatcmpl-{winner}", "inference": winner}, {"value": winner, "episode_id": "talk"}):
        with pytest.raises(InvalidRequest):
            await story.said("better", **wrong)
    with pytest.raises(InvalidRequest):
        await story.said("better", True, winner)
    assert await exported(story) == []


async def test_a_preference_is_no_label_and_no_experiments_metric(story: Story):
    winner, loser = await story.asked("ann"), await story.asked("bob")
    await story.said("better", loser, winner)
    assert [row async for row in examples(story.db, "acme")] == []
    with pytest.raises(InvalidRequest) as refused:
        await results(story.db, EXPERIMENT, BETTER)
    assert "preference" in refused.value.message


async def test_answers_that_broke_off_come_out_as_incomplete_and_those_of_shadows_never(story: Story):
    for changed in ({"outcome": "disconnected"}, {"answer": ""}, {"answer": None, "outcome": "engine_error"}):
        await story.said("helpful", True, await story.asked("ann", **changed))
    await story.said("helpful", True, await story.asked("bob", shadow_of="0" * 44))
    assert [(one.complete, one.answer) for one in await exported(story)] == [
        (False, "an answer to ann"),
        (False, ""),
        (False, None),
    ]


async def test_judged_answers_can_be_narrowed_and_a_metric_narrows_what_was_said(story: Story):
    inference = await story.asked("ann")
    await story.said("helpful", True, inference)
    await story.said("stars", 4, inference)
    late = story.inference("bob", alias="other", created_at=BEGAN + timedelta(days=1))
    await write_inferences(story.db, [late])
    await story.said("helpful", False, late.id)
    assert [one.inference_id for one in await exported(story)] == [inference, late.id]
    (only,) = await exported(story, metric="stars")
    assert [each.metric for each in only.feedback] == ["stars"]
    assert [one.inference_id for one in await exported(story, alias="other")] == [late.id]
    assert [one.inference_id for one in await exported(story, since=BEGAN + timedelta(hours=1))] == [late.id]


async def test_nothing_comes_of_no_content_no_chat_and_no_tenant_of_ones_own(story: Story):
    await story.said("helpful", True, await story.asked("ann", messages=None, answer=None))
    await story.said("helpful", True, await story.asked("bob", messages=[{"content": "no role"}]))
    await story.asked("cat", tenant="globex", episode="talk")
    await story.said("helpful", True, episode_id="talk")
    assert await exported(story) == []
    with pytest.raises(Conflict):
        await anext(judged(story.db, "globex"))
    with pytest.raises(NotFound):
        await anext(judged(story.db, "nobody"))


async def test_more_than_a_page_comes_out_once_each_in_order_and_reads_back(story: Story):
    asked = await story.thumbs(PAGE + 17, a_second=150)
    rows = await exported(story)
    assert [row.inference_id for row in rows] == [one.id for one in asked]
    assert list(read_judged(row.to_json() for row in rows)) == rows


async def test_what_nobody_judged_in_between_is_passed_over_span_by_span(story: Story):
    asked = [story.inference("ann", created_at=BEGAN, messages=None, answer=None) for _ in range(SPAN)]
    late = story.inference("bob", created_at=BEGAN + timedelta(days=1), episode="talk")
    await write_inferences(story.db, [*asked, late])
    await story.said("helpful", True, asked[0].id)
    said = await story.said("helpful", True, episode_id="talk")
    assert [[each.id for each in one.feedback] for one in await exported(story)] == [[said]]
