"""Live traffic as the store adds it up: by step, alias and variant, one tenant's only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from gateway.store import live
from gateway.store.database import Database
from gateway.store.inferences import write_inferences
from tests.gateway.feedback.stories import BEGAN, Story, begin

MINUTE = timedelta(minutes=1)


async def told(story: Story, minute: float, variant: str = "base", **changed: Any) -> None:
    tenant = changed.pop("tenant", "acme")
    row = story.inference("ann", variant, tenant=tenant, **changed)
    row.created_at = BEGAN + timedelta(minutes=minute)
    await write_inferences(story.db, [row])


async def test_requests_are_added_up_by_step_alias_and_variant(db: Database) -> None:
    story = await begin(db)
    await told(story, 0.1, ttft_ms=20.0)
    await told(story, 0.9, ttft_ms=40.0, outcome="engine_error")
    await told(story, 0.5, "tuned", outcome="client_error", ttft_ms=None)
    await told(story, 2, outcome="disconnected", input_tokens=None, output_tokens=None)
    await told(story, 1, alias="other")
    await told(story, 0, tenant="globex")
    await told(story, 3)
    await told(story, -0.01)
    steps = await live.traffic(db, "acme", since=BEGAN, until=BEGAN + 3 * MINUTE, step=MINUTE)
    assert {at - BEGAN: sorted(step) for at, step in steps.items()} == {
        timedelta(): [("support", "base"), ("support", "tuned")],
        MINUTE: [("other", "base")],
        2 * MINUTE: [("support", "base")],
    }
    first = steps[BEGAN]["support", "base"]
    assert (first.requests, first.errors, first.refused, first.input_tokens, first.output_tokens) == (2, 1, 0, 20, 8)
    refused = steps[BEGAN]["support", "tuned"]
    assert (refused.errors, refused.refused, refused.ttft_ms(0.5)) == (0, 1, None)
    first.add(steps[BEGAN + 2 * MINUTE]["support", "base"])
    assert (first.requests, first.ttft.total()) == (3, 3)


async def test_times_to_the_first_token_are_within_seven_percent_whatever_was_added(db: Database) -> None:
    story = await begin(db)
    times = [1.7 * 1.09**n for n in range(100)]
    for n, one in enumerate(times):
        await told(story, n % 5, ttft_ms=one)
    found = live.Traffic()
    for step in (await live.traffic(db, "acme", since=BEGAN, until=BEGAN + 9 * MINUTE, step=MINUTE)).values():
        found.add(step["support", "base"])
    for share, true in ((0.5, times[49]), (0.95, times[94]), (1.0, times[-1])):
        assert found.ttft_ms(share) == pytest.approx(true, rel=0.07)
