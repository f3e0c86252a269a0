"""What a shadow's candidate was asked counts nowhere but in its own comparison, which is small enough to do by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from gateway.feedback.export import examples
from gateway.feedback.results import results
from gateway.store.database import Database
from gateway.store.inferences import write_inferences
from gateway.store.shadows import Compared, compared
from tests.gateway.feedback.stories import EXPERIMENT, METRICS, Story, begin

CANDIDATE = "acme/support@3"


@pytest.fixture
async def story(db: Database) -> AsyncIterator[Story]:
    yield await begin(db)


async def mirrored(story: Story, original: str | None, **changed: Any) -> str:
    """A row as `serving/shadow.py` writes it, of the request `original`; its id."""
    fields: dict[str, Any] = {"experiment": None, "reason": "shadow", "assigned": CANDIDATE, "served": CANDIDATE}
    fields |= {"shadow_of": original, "ttft_ms": None}
    return await story.asked("ann", **({"variant": "shadow"} | fields | changed))


async def test_results_and_export_are_the_same_with_and_without_mirrored_requests(story: Story):
    asked = [await story.asked(user, variant) for user in ("ann", "bob", "cat") for variant in ("base", "tuned")]
    asked += [await story.asked("dan", episode="talk"), await story.asked("eve", reason="targeting_match")]
    for one in asked[:5]:
        await story.said("helpful", True, one)
    await story.said("helpful", False, episode_id="talk")

    async def seen() -> tuple[Any, Any]:
        return await results(story.db, EXPERIMENT, METRICS[0]), [row async for row in examples(story.db, "acme")]

    before = await seen()
    assert len(before[1]) == 6
    for one in asked:
        # As far from what is written as can be: of the experiment, of an arm, of the episode, and judged itself.
        posing = {"experiment": EXPERIMENT.id, "variant": "tuned", "reason": "split", "episode": "talk"}
        for row in (await mirrored(story, one), await mirrored(story, one, **posing)):
            await story.said("helpful", False, row, source="somebody")
        await mirrored(story, one, experiment=EXPERIMENT.id, reason="targeting_match")
    assert await seen() == before


async def test_a_candidate_is_compared_with_what_clients_got_to_the_same_requests(story: Story):
    originals = [await story.asked("ann", duration_ms=100.0 * n, output_tokens=10 * n) for n in (1, 2, 3, 4, 5)]
    for n, original in enumerate(originals[:3], 1):
        await mirrored(story, original, duration_ms=50.0 * n, output_tokens=n)
    await mirrored(story, originals[3], outcome="engine_error", served=None, duration_ms=9e9, output_tokens=None)
    await mirrored(story, originals[4], outcome="timeout", served=None, duration_ms=9e9, output_tokens=None)
    await mirrored(story, "0" * 44, duration_ms=9e9, output_tokens=999)  # whose original was never written
    await mirrored(story, originals[0], alias="other")
    (found,) = await compared(story.db, "acme", "support")
    assert (found.ref, found.requests, found.errors, found.timeouts, found.pairs) == (CANDIDATE, 6, 2, 1, 3)
    assert (found.p50_ms, found.original_p50_ms) == (100.0, 200.0)
    assert (found.p95_ms, found.original_p95_ms) == (pytest.approx(145), pytest.approx(290))
    assert (found.output_tokens, found.original_output_tokens) == (2.0, 20.0)
    assert found.since < found.until


async def test_candidates_are_told_apart_the_latest_first(story: Story):
    original = await story.asked("ann")
    await mirrored(story, original)
    await mirrored(story, original, assigned="base", served="base")
    assert [(one.ref, one.requests) for one in await compared(story.db, "acme", "support")] == [
        ("base", 1),
        (CANDIDATE, 1),
    ]


async def test_what_a_shadow_of_before_came_to_is_left_out_of_a_later_ones(story: Story):
    original = await story.asked("ann")
    await mirrored(story, original, outcome="engine_error", served=None)
    (before,) = await compared(story.db, "acme", "support")
    await mirrored(story, original)
    (found,) = await compared(story.db, "acme", "support", since=before.until + timedelta(microseconds=1))
    assert (before.errors, found.requests, found.errors) == (1, 1, 0)


async def test_a_candidate_that_answered_nothing_has_no_times(story: Story):
    await mirrored(story, await story.asked("ann"), outcome="timeout", served=None)
    (found,) = await compared(story.db, "acme", "support")
    assert (found.requests, found.errors, found.pairs, found.p50_ms, found.output_tokens) == (1, 1, 0, None, None)


async def test_another_tenants_requests_are_no_originals(story: Story):
    theirs = await story.asked("ann", tenant="globex")
    await mirrored(story, theirs)
    (found,) = await compared(story.db, "acme", "support")
    assert (found.requests, found.pairs) == (1, 0)
    assert await compared(story.db, "globex", "support") == []


async def test_the_comparison_finds_its_rows_by_index_however_many_others_there_are(story: Story):
    others = [story.inference("ann", duration_ms=1.0) for _ in range(20_000)]
    await write_inferences(story.db, others)
    await write_inferences(
        story.db,
        [
            story.inference("ann", "shadow", assigned=CANDIDATE, shadow_of=one.id, experiment=None)
            for one in others[:100]
        ],
    )
    async with story.db.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = await connection.fetch(
            "EXPLAIN SELECT 1 FROM inferences WHERE tenant = 'acme' AND alias = 'support' AND shadow_of IS NOT NULL"
            " ORDER BY created_at DESC LIMIT 10"
        )
    assert "inferences_of_shadow" in str(plan)
    (found,) = await compared(story.db, "acme", "support")
    assert isinstance(found, Compared) and found.pairs == 100
