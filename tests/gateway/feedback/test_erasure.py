"""Erasing a user: what goes, what stays, and what is written later of what was asked before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.lineage import LineageRow
from adapters.ref import AdapterRef
from gateway.control.lineage import Lineages, Who
from gateway.control.metrics import Metrics
from gateway.control.users import Users
from gateway.domain import Adapter, Metric, MetricKind, Unit
from gateway.errors import InvalidRequest, NotFound
from gateway.feedback.export import examples, judged
from gateway.feedback.results import results
from gateway.identity import unit_of
from gateway.store import adapters, erasures, experiments, lineage
from gateway.store.audit import entries
from gateway.store.database import Database
from gateway.store.inferences import write_inferences
from tests.gateway.feedback.stories import EXPERIMENT, METRICS, Story, begin

ANN = "ann@example.com"


@pytest.fixture
async def story(db: Database) -> AsyncIterator[Story]:
    one = await begin(db)
    await Metrics(db).declare(Metric("acme", "better", MetricKind.PREFERENCE), actor="test")
    yield one


def users(story: Story) -> Users:
    return Users(story.db, Lineages(story.db, story.current))


def unit(story: Story, user: str = ANN) -> str:
    return unit_of(story.current.snapshot.secret, "acme", user)


async def exported(story: Story) -> list[str]:
    both = [one.inference_id async for one in judged(story.db, "acme")]
    return both + [str(one.inference_id) async for one in examples(story.db, "acme")]


async def kept(story: Story, columns: str, table: str = "inferences") -> list[tuple[Any, ...]]:
    async with story.db.transaction() as connection:
        return [tuple(row) for row in await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY created_at, id")]


async def test_a_users_content_and_feedback_go_and_others_and_counts_stay(story: Story):
    mine = [await story.asked(ANN, episode="talk"), await story.asked(ANN)]
    other = await story.asked("bob")
    for inference in (*mine, other):
        await story.said("helpful", True, inference, comment="hers", correction="ideal")
    await story.said("escalated", True, episode_id="talk")
    done = await users(story).erase("acme", Who(ANN), actor="operator")
    assert (done.unit, done.erased, done.retrain) == (unit(story), erasures.Erased(2, 3), ())
    assert await exported(story) == [other, other]
    content = [(one, None, None, None) for one in mine] + [(other, True, True, None)]
    assert (
        await kept(story, "id, nullif(messages IS NOT NULL, false), nullif(answer IS NOT NULL, false), episode")
        == content
    )
    assert await kept(story, "inference_id", "feedback") == [(other,)]
    found = await results(story.db, EXPERIMENT, METRICS[0])
    assert (found.inferences, found.variants[1].feedback) == (3, 1), (
        "that she asked still counts, what she said does not"
    )
    again = await users(story).erase("acme", Who(unit=unit(story)), actor="operator")
    assert again.erased == erasures.Erased(0, 0)


async def test_where_the_unit_is_the_episode_an_erased_users_conversations_fall_apart(story: Story):
    experiment = replace(EXPERIMENT, unit=Unit.EPISODE)
    async with story.db.transaction() as connection:
        await experiments.put(connection, experiment)
    for user, talk in ((ANN, "one"), (ANN, "one"), (ANN, "one"), ("bob", "two"), ("bob", "two")):
        await story.asked(user, episode=talk)
    await story.said("helpful", True, episode_id="one")

    async def units() -> tuple[int, int, int]:
        found = await results(story.db, experiment, METRICS[0])
        return found.inferences, found.variants[1].units, found.variants[1].feedback

    assert await units() == (5, 2, 1)
    await users(story).erase("acme", Who(ANN), actor="operator")
    assert await units() == (5, 4, 0)


async def test_what_is_written_later_of_an_earlier_request_comes_without_content_and_early_feedback_goes(story: Story):
    late = story.inference(ANN, created_at=datetime.now(UTC) - timedelta(seconds=1), episode="talk")
    await story.said("helpful", True, late.id, comment="before its inference was written")
    await users(story).erase("acme", Who(ANN), actor="operator")
    await write_inferences(story.db, [late, story.inference("bob")])
    assert await kept(story, "messages IS NULL, answer IS NULL, episode IS NULL") == [(False, False, True), (True,) * 3]
    assert await kept(story, "id", "feedback") == []
    assert await exported(story) == []


async def test_what_the_user_asks_afterwards_is_kept_again_until_it_is_erased_again(story: Story):
    await users(story).erase("acme", Who(ANN), actor="operator")
    new = story.inference(ANN, created_at=datetime.now(UTC))
    await write_inferences(story.db, [new])
    await story.said("helpful", True, new.id)
    assert await exported(story) == [new.id, new.id]


async def test_a_batch_on_its_way_during_the_erasure_leaves_no_content(story: Story):
    """The erasure waits for a batch that is being written, and a batch that comes meanwhile waits for the erasure."""
    asked = [story.inference(ANN, created_at=datetime.now(UTC) - timedelta(seconds=5)) for _ in range(40)]
    bobs = [story.inference("bob", created_at=one.created_at) for one in asked]

    async def write(number: int) -> None:
        await asyncio.sleep(number / 2000)
        await write_inferences(story.db, [asked[number], bobs[number]])

    async with asyncio.TaskGroup() as group:
        for number in range(len(asked)):
            group.create_task(write(number))
        group.create_task(users(story).erase("acme", Who(ANN), actor="operator"))
    left = await kept(story, "unit, messages IS NULL AND answer IS NULL")
    assert sorted(left) == sorted([(unit(story), True)] * 40 + [(unit(story, "bob"), False)] * 40)


async def test_exports_leave_out_what_is_remembered_as_erased_even_before_its_content_is_gone(story: Story):
    """An erasure that is cut off after its first transaction has hidden everything, and done again it is complete."""
    inference, loser = await story.asked("bob"), await story.asked(ANN)
    await story.said("helpful", True, loser)
    await story.said("better", loser, inference)
    async with story.db.transaction() as connection:
        await connection.execute(erasures._REMEMBER, "acme", unit(story))
    (one,) = [each async for each in judged(story.db, "acme")]
    assert one.inference_id == inference
    assert one.feedback[0].over is not None and one.feedback[0].over.answer is None
    assert (await users(story).erase("acme", Who(ANN), actor="operator")).erased == erasures.Erased(1, 1)


async def test_the_targeting_key_is_written_nowhere(story: Story):
    await story.asked(ANN)
    await users(story).erase("acme", Who(ANN), actor="operator")
    async with story.db.transaction() as connection:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in tables:
            rows = await connection.fetch(f'SELECT t::text FROM "{table}" t')
            assert not [row for row in rows if ANN in row[0]], table
    (entry, *_) = await entries(story.db, "acme", 10)
    assert (entry.action, entry.subject, entry.actor) == ("user.erase", unit(story), "operator")


@pytest.mark.parametrize("who", [Who(), Who("ann", "0" * 32), Who(unit="0" * 31), Who(unit="ann")])
async def test_exactly_one_user_is_named(story: Story, who: Who):
    with pytest.raises(InvalidRequest):
        await users(story).erase("acme", who, actor="operator")
    with pytest.raises(NotFound):
        await users(story).erase("nobody", Who(ANN), actor="operator")


async def _learns(story: Story, name: str, *rows: LineageRow, continues: AdapterRef | None = None) -> AdapterRef:
    ref = AdapterRef("acme", name, 1)
    async with story.db.transaction() as connection:
        await adapters.insert(connection, Adapter(ref, "sha256:0", 8, "demo/tiny", continues=continues))
        await lineage.replace(connection, ref, _once(list(rows)))
    return ref


async def _once(rows: list[LineageRow]) -> AsyncIterator[list[LineageRow]]:
    yield rows


async def test_the_versions_to_train_again_are_those_in_use_that_learnt_from_the_user_in_any_way(story: Story):
    mine, other = await story.asked(ANN), await story.asked("bob")
    lost = await story.said("better", mine, other)
    by_unit = await _learns(story, "by-unit", *[LineageRow(row="sha256:1", unit=unit(story))] * 2)
    by_answer = await _learns(story, "by-answer", LineageRow(row="sha256:2", inference_id=mine))
    by_loss = await _learns(story, "by-loss", LineageRow(row="sha256:3", inference_id=other, feedback_ids=[lost]))
    gone = await _learns(story, "gone", LineageRow(row="sha256:4", unit=unit(story)))
    await _learns(story, "without", LineageRow(row="sha256:5", unit=unit(story, "bob"), inference_id=other))
    async with story.db.transaction() as connection:
        await adapters.retire(connection, gone)
    lineages = Lineages(story.db, story.current)
    for _ in range(2):  # and still after the rows are gone
        _, learnt = await lineages.of_user("acme", Who(ANN))
        assert {one.part.ref: one.part.rows for one in learnt} == {by_unit: 2, by_answer: 1, by_loss: 1, gone: 1}
        done = await users(story).erase("acme", Who(ANN), actor="operator")
        assert done.retrain == tuple(sorted((by_unit, by_answer, by_loss)))
    whose, learnt = await lineages.of_inference("acme", f"chatcmpl-{mine}")
    assert (whose, [one.part.ref for one in learnt]) == (unit(story), [by_answer, by_loss])
    whose, learnt = await lineages.of_feedback("acme", lost)
    assert (whose, [one.part.ref for one in learnt]) == (unit(story, "bob"), [by_loss])


async def test_a_version_has_learnt_whatever_the_one_has_that_it_goes_on_from(story: Story):
    first = await _learns(story, "first", LineageRow(row="sha256:1", unit=unit(story)))
    second = await _learns(story, "second", LineageRow(row="sha256:2", unit=unit(story, "bob")), continues=first)
    third = await _learns(story, "third", continues=second)
    lineages = Lineages(story.db, story.current)
    _, learnt = await lineages.of_user("acme", Who(ANN))
    assert {one.part.ref: one.part.rows for one in learnt} == {first: 1, second: 0, third: 0}
    _, learnt = await lineages.of_user("acme", Who("bob"))
    assert {one.part.ref: one.part.rows for one in learnt} == {second: 1, third: 0}
    async with story.db.transaction() as connection:
        await adapters.retire(connection, first)
    done = await users(story).erase("acme", Who(ANN), actor="operator")
    assert done.retrain == (second, third)


async def test_both_answers_of_a_pair_that_two_thumbs_made_are_found(story: Story):
    good, bad = await story.asked(ANN), await story.asked(ANN)
    row = LineageRow(row="sha256:1", inference_id=good, feedback_ids=[await story.said("helpful", True, good)])
    row.feedback_ids.append(await story.said("helpful", False, bad))
    pairs = await _learns(story, "pairs", row)
    for answer in (good, bad):
        _, learnt = await Lineages(story.db, story.current).of_inference("acme", answer)
        assert [one.part.ref for one in learnt] == [pairs]
