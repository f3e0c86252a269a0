"""Counts are said and exported like other numbers; a ratio is declared over two metrics and never said."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.control.metrics import Metrics
from gateway.domain import Metric, MetricKind
from gateway.errors import InvalidRequest
from gateway.feedback.export import examples, judged
from gateway.store.database import Database
from tests.gateway.feedback.stories import Story, begin
from trainer.feedback.heard import listen

CLICKS = Metric("acme", "clicks", MetricKind.COUNT, description="links followed", unit="clicks")
PER_ANSWER = Metric("acme", "clicks-per-star", MetricKind.RATIO, numerator="clicks", denominator="stars")


@pytest.fixture
async def story(db: Database) -> AsyncIterator[Story]:
    story = await begin(db)
    for metric in (CLICKS, PER_ANSWER):
        await Metrics(db).declare(metric, actor="test")
    yield story


async def test_a_count_is_a_whole_number_from_0_up(story: Story):
    inference = await story.asked("ann")
    for value in (0, 3, 2.0, 1e12):
        await story.said("clicks", value, inference)
    for value in (-1, 1.5, 1e13, True, "3"):
        with pytest.raises(InvalidRequest) as refused:
            await story.said("clicks", value, inference)
        assert "whole number from 0 up" in refused.value.message
    async with story.db.transaction() as connection:
        rows = await connection.fetch("SELECT kind, number FROM feedback ORDER BY seq")
    assert [(row["kind"], row["number"]) for row in rows] == [("count", each) for each in (0.0, 3.0, 2.0, 1e12)]


async def test_a_ratio_is_worked_out_and_never_said(story: Story):
    for value in (1.0, 1, True, "x"):
        with pytest.raises(InvalidRequest) as refused:
            await story.said("clicks-per-star", value, await story.asked("ann"))
        assert "numerator" in refused.value.message


async def test_a_count_leaves_an_export_as_it_came_and_teaches_nothing_by_itself(story: Story):
    inference = await story.asked("ann")
    await story.said("clicks", 3, inference, correction="better said")
    [answer] = [one async for one in judged(story.db, "acme")]
    [said] = answer.feedback
    assert (said.kind, said.value, said.correction) == ("count", 3.0, "better said")
    [row] = [one async for one in examples(story.db, "acme")]
    assert (row.kind, row.completion) == ("demonstration", "better said")
    counts: Counter[str] = Counter()
    assert [each.said.id for each in listen([answer], user_rows=9, counts=counts)] == [said.id]
    assert counts["feedbacks"] == 1


NO_RATIOS: list[tuple[dict[str, Any], str]] = [
    ({"numerator": None}, "Name its numerator"),
    ({"denominator": None}, "Name its denominator"),
    ({"numerator": "undeclared"}, "Declare it first"),
    ({"denominator": "note"}, "boolean, float, count"),
    ({"numerator": "clicks-per-star"}, "another numerator"),
    ({"kind": MetricKind.FLOAT}, "Leave it out"),
]


async def test_a_ratio_divides_two_metrics_with_numbers(story: Story):
    fields: dict[str, Any] = {"kind": MetricKind.RATIO, "numerator": "clicks", "denominator": "helpful"}
    for changed, remedy in NO_RATIOS:
        with pytest.raises(InvalidRequest) as refused:
            await Metrics(story.db).declare(Metric("acme", "new", **{**fields, **changed}), actor="test")
        assert remedy in refused.value.message


async def test_a_ratio_may_divide_what_nobody_declares(story: Story):
    metric = Metric("acme", "tokens-per-click", MetricKind.RATIO, "min", "", "", "output_tokens", "clicks")
    assert await Metrics(story.db).declare(metric, actor="test") == metric
    assert metric in await Metrics(story.db).list("acme")
