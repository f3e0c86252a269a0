"""Feedback is durable before it is acknowledged, one row however often it is sent, and about one's own answers only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError

from gateway.domain import Feedback, Tenant
from gateway.errors import IdempotencyMismatch, InvalidRequest, NotFound, Unavailable
from gateway.feedback.intake import FeedbackBody, Intake
from gateway.identity import new_inference_id
from gateway.store.database import Database
from tests.gateway.feedback.stories import Story, begin

ACME, GLOBEX = Tenant("acme"), Tenant("globex")


@pytest.fixture
async def story(db: Database) -> AsyncIterator[Story]:
    yield await begin(db)


async def rows(db: Database) -> list[dict[str, object]]:
    async with db.transaction() as connection:
        return [dict(row) for row in await connection.fetch("SELECT * FROM feedback ORDER BY seq")]


async def test_feedback_is_accepted_before_its_inference_is_written(story: Story):
    early = new_inference_id(story.current.snapshot.secret, "acme")
    await story.said("helpful", True, f"chatcmpl-{early}")
    (row,) = await rows(story.db)
    assert row["inference_id"] == early and row["number"] == 1.0 and row["kind"] == "boolean"


async def test_a_foreign_id_and_a_made_up_one_are_refused_with_the_same_bytes(story: Story):
    bodies = []
    theirs = await story.asked("ann", tenant="globex")
    for text in (theirs, "chatcmpl-" + "0" * 44, "nonsense", "ü" * 44):
        with pytest.raises(NotFound) as refused:
            await story.said("helpful", True, text)
        bodies.append(refused.value.body())
    assert len(set(bodies)) == 1
    assert await rows(story.db) == []


async def test_the_same_idempotency_key_and_body_is_one_row_even_when_sent_at_once(story: Story):
    inference = await story.asked("ann")
    body = FeedbackBody(inference_id=f"chatcmpl-{inference}", metric="stars", value=4, idempotency_key="k")
    bare = body.model_copy(update={"inference_id": inference})
    answers = await asyncio.gather(*(story.intake.accept(ACME, b) for b in [body, bare] * 8))
    assert len({feedback.id for feedback, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert len(await rows(story.db)) == 1


async def test_the_same_idempotency_key_with_another_body_is_refused_and_changes_nothing(story: Story):
    inference = await story.asked("ann")
    await story.said("helpful", True, inference, idempotency_key="k")
    with pytest.raises(IdempotencyMismatch):
        await story.said("helpful", False, inference, idempotency_key="k")
    (row,) = await rows(story.db)
    assert row["number"] == 1.0


async def test_two_tenants_may_use_the_same_idempotency_key(story: Story):
    await story.said("helpful", True, await story.asked("ann"), idempotency_key="k")
    theirs = await story.asked("bob", tenant="globex")
    body = FeedbackBody(inference_id=theirs, metric="thumbs", value=True, idempotency_key="k")
    _, created = await story.intake.accept(GLOBEX, body)
    assert created


async def test_without_a_key_saying_it_again_is_a_new_row(story: Story):
    inference = await story.asked("ann")
    first, second = await story.said("helpful", True, inference), await story.said("helpful", True, inference)
    assert first != second and len(await rows(story.db)) == 2


async def test_an_undeclared_metric_is_refused_with_the_declared_ones(story: Story):
    with pytest.raises(InvalidRequest) as refused:
        await story.said("hepful", True, await story.asked("ann"))
    assert refused.value.param == "metric" and refused.value.code == "metric_not_found"
    assert "escalated, helpful" in refused.value.message


async def test_a_metric_declared_a_moment_ago_is_known_before_the_snapshot_is(story: Story):
    async with story.db.transaction() as connection:
        await connection.execute("INSERT INTO metrics VALUES ('acme', 'fresh', 'float', 'max', '', now())")
    assert ("acme", "fresh") not in story.current.snapshot.metrics
    await story.said("fresh", 0.5, await story.asked("ann"))


async def test_a_value_of_the_wrong_kind_is_refused(story: Story):
    inference = await story.asked("ann")
    wrong = {"helpful": (1.0, "yes"), "stars": (True, "4", 1e300), "note": (3, True), "ideal": (True,)}
    for metric, values in wrong.items():
        for value in values:
            with pytest.raises(InvalidRequest) as refused:
                await story.said(metric, value, inference)
            assert refused.value.param == "value" and refused.value.status == 400


async def test_an_ideal_answer_for_a_whole_conversation_is_refused_rather_than_lost(story: Story):
    for metric, value, more in (("ideal", "so", {}), ("helpful", False, {"correction": "so"})):
        with pytest.raises(InvalidRequest, match="belongs to one request"):
            await story.said(metric, value, episode_id="talk", **more)
    await story.said("helpful", False, episode_id="talk")


@pytest.mark.parametrize(
    "body",
    [
        {"metric": "helpful", "value": True},
        {"metric": "helpful", "value": True, "inference_id": "a", "episode_id": "b"},
        {"metric": "stars", "value": float("nan"), "episode_id": "b"},
        {"metric": "stars", "value": float("inf"), "episode_id": "b"},
        {"metric": "helpful", "value": True, "episode_id": "b", "tenant": "globex"},
        {"metric": "note", "value": "x" * 100_001, "episode_id": "b"},
    ],
)
def test_a_body_that_is_not_one_judgement_of_one_thing_is_no_body(body: dict[str, object]):
    with pytest.raises(ValidationError):
        FeedbackBody.model_validate(body)


async def test_each_new_judgement_is_told_once_with_the_span_it_is_about(story: Story):
    told: list[tuple[Feedback, str | None, str | None]] = []
    intake = Intake(story.db, story.current, emit=lambda *event: told.append(event))
    inference = await story.asked("ann", trace_id="a" * 32, span_id="b" * 16)
    body = FeedbackBody(inference_id=inference, metric="helpful", value=True, idempotency_key="k")
    for _ in range(2):
        await intake.accept(ACME, body)
    ((feedback, trace, span),) = told
    assert feedback.inference_id == inference and (trace, span) == ("a" * 32, "b" * 16)


async def test_failing_telemetry_does_not_fail_durable_feedback(story: Story):
    def broken(*_: object) -> None:
        raise RuntimeError("the collector is gone")

    intake = Intake(story.db, story.current, emit=broken)
    body = FeedbackBody(inference_id=await story.asked("ann"), metric="helpful", value=True)
    _, created = await intake.accept(ACME, body)
    assert created and len(await rows(story.db)) == 1


async def test_without_the_database_feedback_is_unavailable_and_never_accepted(story: Story):
    away = await Database.connect("postgresql://nobody@127.0.0.1:1/none")
    try:
        body = FeedbackBody(inference_id=await story.asked("ann"), metric="helpful", value=True)
        with pytest.raises(Unavailable) as refused:
            await Intake(away, story.current).accept(ACME, body)
        assert refused.value.retry_after is not None
    finally:
        await away.close()
