"""What users said becomes training rows: one a judged inference, with the best label there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from adapters.examples import Example, read_jsonl
from gateway.control.tenants import Tenants
from gateway.errors import Conflict, NotFound
from gateway.feedback.export import examples
from gateway.identity import unit_of
from gateway.store.database import Database
from gateway.store.exports import PAGE
from gateway.store.inferences import write_inferences
from tests.gateway.feedback.stories import BEGAN, TUNED, Story, begin


@pytest.fixture
async def story(db: Database) -> AsyncIterator[Story]:
    yield await begin(db)


async def exported(story: Story, **narrowed: Any) -> list[Example]:
    return [example async for example in examples(story.db, "acme", **narrowed)]


async def test_a_thumb_labels_the_answer_and_says_where_it_comes_from(story: Story):
    inference = await story.asked("ann", propensity=0.25)
    feedback = await story.said("helpful", False, inference)
    (row,) = await exported(story)
    assert (row.kind, row.label, row.completion) == ("label", False, "an answer to ann")
    assert row.messages == [{"role": "user", "content": "ann asks"}]
    assert (row.inference_id, row.feedback_ids, row.variant, row.alias) == (inference, [feedback], "tuned", "support")
    assert (row.adapter, row.propensity) == (str(TUNED), 0.25)
    assert row.unit == unit_of(story.current.snapshot.secret, "acme", "ann")


@pytest.mark.parametrize("way", ["correction", "demonstration"])
async def test_somebodys_own_words_beat_a_thumb_however_late_the_thumb(story: Story, way: str):
    inference = await story.asked("ann")
    if way == "correction":
        best = await story.said("helpful", False, inference, correction="the ideal answer", source="reviewer")
    else:
        best = await story.said("ideal", "the ideal answer", inference)
    await story.said("helpful", True, inference)
    (row,) = await exported(story)
    assert (row.kind, row.label, row.completion) == ("demonstration", None, "the ideal answer")
    assert row.feedback_ids == [best]


async def test_of_one_source_the_latest_word_counts_and_withdraws_an_older_correction(story: Story):
    inference = await story.asked("ann")
    await story.said("helpful", False, inference, correction="hasty")
    await story.said("helpful", True, inference)
    (row,) = await exported(story)
    assert (row.kind, row.label) == ("label", True)


async def test_what_is_better_when_smaller_labels_the_other_way_round(story: Story):
    await story.said("escalated", True, await story.asked("ann"))
    await story.said("escalated", False, await story.asked("bob"))
    assert [row.label for row in await exported(story)] == [False, True]


async def test_feedback_on_a_conversation_labels_each_of_its_answers_unless_one_has_its_own(story: Story):
    first, second = await story.asked("ann", episode="talk"), await story.asked("ann", episode="talk")
    await story.said("helpful", False, second)
    await story.said("helpful", True, episode_id="talk")
    rows = await exported(story)
    assert {row.inference_id: row.label for row in rows} == {first: True, second: False}


async def test_comments_and_numbers_are_no_labels(story: Story):
    inference = await story.asked("ann")
    await story.said("note", "meh", inference)
    await story.said("stars", 2, inference)
    assert await exported(story) == []


async def test_a_cut_off_answer_is_not_labelled_but_may_be_corrected(story: Story):
    await story.said("helpful", True, await story.asked("ann", outcome="disconnected"))
    await story.said("helpful", True, await story.asked("bob", answer=None, outcome="engine_error"))
    await story.said("helpful", False, await story.asked("cat", outcome="disconnected"), correction="whole")
    assert [row.completion for row in await exported(story)] == ["whole"]


async def test_inferences_without_content_are_left_out(story: Story):
    await story.said("helpful", True, await story.asked("ann", messages=None, answer=None))
    assert await exported(story) == []


async def test_a_prompt_that_is_no_chat_is_left_out_and_the_others_are_not(story: Story):
    await story.said("ideal", "so", await story.asked("ann", messages=[{"content": "who said this?"}]))
    await story.said("ideal", "so", await story.asked("bob"))
    assert [row.messages[0]["content"] for row in await exported(story)] == ["bob asks"]


async def test_rows_can_be_narrowed_by_alias_metric_and_moment(story: Story):
    await story.said("helpful", True, await story.asked("ann"))
    await story.said("escalated", True, await story.asked("bob", alias="other"))
    late = story.inference("cat", created_at=BEGAN + timedelta(days=1))
    await write_inferences(story.db, [late])
    await story.said("helpful", True, late.id)
    names = [row.messages[0]["content"].split()[0] for row in await exported(story)]
    assert names == ["ann", "bob", "cat"]
    assert [row.alias for row in await exported(story, alias="other")] == ["other"]
    assert len(await exported(story, metric="helpful")) == 2
    assert [row.inference_id for row in await exported(story, since=BEGAN + timedelta(hours=1))] == [late.id]


async def test_another_tenants_traffic_never_shows(story: Story):
    await Tenants(story.db).update("globex", store_content=True, actor="test")
    await story.asked("ann", tenant="globex", episode="talk")
    await story.asked("bob", episode="other talk")
    await story.said("helpful", True, episode_id="talk")
    assert await exported(story) == []
    assert [row async for row in examples(story.db, "globex")] == []


async def test_a_tenant_that_keeps_no_content_is_told_how_to(story: Story):
    with pytest.raises(Conflict) as refused:
        await anext(examples(story.db, "globex"))
    assert "--store-content" in refused.value.message
    with pytest.raises(NotFound):
        await anext(examples(story.db, "nobody"))


async def test_more_than_a_page_comes_out_once_each_in_order_and_reads_back(story: Story):
    asked = await story.thumbs(2 * PAGE + 17, a_second=300)  # the page boundary falls among equals
    rows = await exported(story)
    assert [row.inference_id for row in rows] == [one.id for one in asked]
    assert list(read_jsonl(row.to_json() for row in rows)) == rows
