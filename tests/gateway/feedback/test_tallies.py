"""Tallies: what is read, what happens when one is cut off, and which figures there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from gateway.control.metrics import Metrics
from gateway.domain import Feedback, Metric, MetricKind, Unit
from gateway.errors import GatewayError
from gateway.experiment import Epoch, Evidence, Experiment, Plan, Sums
from gateway.feedback.results import results
from gateway.feedback.segments import TAG_KEYS, TAG_VALUES, Words, segments
from gateway.feedback.tallies import Tallies
from gateway.store import experiments, recipes
from gateway.store.automatic import Price, automatic
from gateway.store.database import Database
from gateway.store.feedback import record
from gateway.store.inferences import write_inferences
from tests.gateway.feedback.stories import BEGAN, EXPERIMENT, METRICS, Story, begin
from tests.gateway.feedback.tallied import tallied

HELPFUL = METRICS[0]


@pytest.fixture
async def story(db: Database) -> AsyncIterator[Story]:
    yield await begin(db)


async def put(story: Story, **changed: Any) -> Experiment:
    experiment = replace(EXPERIMENT, **changed)
    async with story.db.transaction() as connection:
        await experiments.put(connection, experiment)
    return experiment


async def evidence(story: Story, experiment: Experiment = EXPERIMENT) -> Evidence:
    tallies = Tallies(story.db)
    while await tallies.catch_up():
        pass
    known = {**automatic("acme", currency="EUR"), **{metric.name: metric for metric in METRICS}}
    return await tallies.evidence(experiment, known)


async def test_a_unit_stays_in_the_arm_of_its_first_exposure_and_in_that_epoch(story: Story):
    experiment = await put(story, epochs=(Epoch(2, BEGAN, (1.0, 1.0)), Epoch(5, BEGAN, (1.0, 3.0))))
    await story.said("helpful", True, await story.asked("ann", "base"))
    await story.said("helpful", False, await story.asked("ann", "tuned", alias_revision=5))
    await story.said("helpful", True, await story.asked("bob", "tuned", alias_revision=5))
    found = await evidence(story, experiment)
    assert (found.exposed, found.moved) == ({(0, "base"): 1, (1, "tuned"): 1}, 1)
    assert found.sums["helpful", 0, "base"] == Sums(units=1, n=1, s=1, nn=1, ns=1, ss=1)
    shown = await results(story.db, experiment, HELPFUL)
    assert (shown.moved, shown.inferences, [arm.units for arm in shown.variants]) == (1, 2, [1, 1])


async def test_segments_hold_the_primary_metric_by_the_first_exposure(story: Story):
    long = "Ich warte immer noch auf meine Karte, wann kommt sie denn endlich an?"
    asked = await story.asked("ann", input_tokens=2500, messages=[{"role": "user", "content": long}])
    await story.said("helpful", True, asked)
    await story.asked("bob", input_tokens=50, messages=None, answer=None, params={"metadata": {"plan": "pro"}})
    found = (await evidence(story)).segments
    assert set(found) == {"prompt:long", "language:de", "prompt:short", "tag:plan=pro"}
    assert found["language:de"].sums == {("helpful", 0, "tuned"): Sums(1, 1, 1, nn=1, ns=1, ss=1)}
    assert (found["tag:plan=pro"].exposed, found["tag:plan=pro"].sums) == ({(0, "tuned"): 1}, {})


async def test_counts_are_of_all_exposed_units_and_cost_is_there_once_tokens_have_a_price(story: Story):
    clicks = Metric("acme", "clicks", MetricKind.COUNT)
    for user in ("ann", "bob", "cat"):
        await story.asked(user, input_tokens=1_000_000, output_tokens=100_000)
    found = await Tallies(story.db).evidence(EXPERIMENT, {"clicks": clicks})
    assert found == Evidence()
    assert "cost" not in {name for name, *_ in (await evidence(story)).sums}
    async with story.db.transaction() as connection:
        await recipes.set_price(connection, Price.per_million(Decimal(2), Decimal(10), "EUR"))
    await story.asked("ann", input_tokens=1_000_000, output_tokens=100_000)
    while await Tallies(story.db).catch_up() or await Tallies(story.db).build():
        pass
    known = {"clicks": clicks, **automatic("acme", currency="EUR")}
    sums = (await Tallies(story.db).evidence(EXPERIMENT, known)).sums
    assert sums["clicks", 0, "tuned"] == Sums(3, 3, nn=3)
    assert (sums["cost", 0, "tuned"].n, sums["cost", 0, "tuned"].s) == (4, pytest.approx(12))


async def test_what_the_stored_content_says_is_measured(story: Story):
    sorry = await story.asked("ann", answer="I\u2019m sorry, but I cannot help with that.")
    await story.asked("ann")
    await story.asked("bob", answer="Sorrento is in Italy.", messages=None)
    await story.said("helpful", False, sorry, correction="I'm glad to help with that.")
    sums = (await evidence(story)).sums
    assert (sums["refusal_rate", 0, "tuned"].n, sums["refusal_rate", 0, "tuned"].s) == (3, 1)
    assert (sums["regeneration_rate", 0, "tuned"].n, sums["regeneration_rate", 0, "tuned"].s) == (2, 1)
    assert 0 < sums["edit_distance", 0, "tuned"].s < 1
    assert (sums["feedback_rate", 0, "tuned"].n, sums["feedback_rate", 0, "tuned"].s) == (3, 1)


async def test_a_tenants_own_metric_wins_over_the_automatic_one_of_its_name(story: Story):
    own = Metric("acme", "latency", MetricKind.FLOAT)

    await Metrics(story.db).declare(own, actor="test")
    await story.said("latency", 7, await story.asked("ann", duration_ms=900.0))
    sums = (await evidence(story)).sums
    assert sums["latency", 0, "tuned"].s == 7
    assert (await results(story.db, EXPERIMENT, HELPFUL)).inferences == 1


async def test_a_catch_up_that_is_cut_off_in_the_midst_loses_nothing(story: Story):
    for user in ("ann", "bob"):
        await story.said("helpful", True, await story.asked(user))
    blocker = await asyncpg.connect(story.db.url)
    await blocker.execute("BEGIN; LOCK TABLE totals IN ACCESS EXCLUSIVE MODE")

    async def cut() -> None:
        find = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with asyncio.timeout(20):
            while not (pid := await blocker.fetchval(find)):
                await blocker.execute("SELECT pg_sleep(0.01)")
        await blocker.execute(f"SELECT pg_terminate_backend({pid})")

    with pytest.raises(GatewayError):
        await asyncio.gather(Tallies(story.db).catch_up(), cut())
    await blocker.execute("ROLLBACK")
    await blocker.close()
    assert (await evidence(story)).sums["helpful", 0, "tuned"].s == 2


class Held(Database):
    """Commits once it is allowed to."""

    def __init__(self, database: Database) -> None:
        super().__init__(database._pool, database.url)
        self.said, self.go = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def transaction(self, *, picture: bool = False) -> AsyncIterator[Any]:
        async with super().transaction(picture=picture) as connection:
            yield connection
            self.said.set()
            await self.go.wait()


async def test_feedback_and_its_inference_that_are_written_at_the_same_time_find_each_other(story: Story):
    """Neither sees the other: the inference commits first, and is worked in before the feedback commits."""
    held, late = Held(story.db), story.inference("ann")
    said = Feedback("fb-race", "acme", "helpful", True, BEGAN, inference_id=late.id)
    async with asyncio.TaskGroup() as group:
        group.create_task(record(held, said, kind=MetricKind.BOOLEAN, digest=b""))
        await held.said.wait()
        await write_inferences(story.db, [late])
        assert ("helpful", 0, "tuned") not in (await evidence(story)).sums
        held.go.set()
    assert (await evidence(story)).sums["helpful", 0, "tuned"].s == 1


async def test_evidence_stays_the_old_one_until_all_is_rebuilt_and_then_the_old_one_is_cleared_away(story: Story):
    for user in ("ann", "bob", "cat"):
        await story.asked(user)
    before, tallies = await evidence(story), Tallies(story.db)
    kept = await tallied(story.db, EXPERIMENT)
    await tallies.begin_rebuild(EXPERIMENT.id)
    await tallies.build(limit=2)
    assert await evidence(story) == before
    while await tallies.build(limit=2):
        pass
    assert await tallied(story.db, EXPERIMENT) == kept
    async with story.db.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM tallies") == 3
        assert await connection.fetchval("SELECT count(*) FROM marks") == 0


async def test_what_comes_in_during_a_rebuild_is_in_the_new_figures_too(story: Story):
    asked = [await story.asked(user) for user in ("ann", "bob", "cat")]
    tallies = Tallies(story.db)
    await evidence(story)
    await tallies.begin_rebuild(EXPERIMENT.id)
    for _ in asked:
        await tallies.build(limit=1)  # all users are seen, and nothing of it is read yet
    for inference in asked:
        await story.said("helpful", True, inference)
    assert (await evidence(story)).sums["helpful", 0, "tuned"].s == 3
    while await tallies.build():
        pass
    assert (await evidence(story)).sums["helpful", 0, "tuned"].s == 3


async def test_a_judged_conversation_goes_to_who_asked_first_in_it_even_if_that_is_written_later(story: Story):
    late = story.inference("ann", "base", episode="talk")
    await story.asked("bob", "tuned", episode="talk")
    await story.said("helpful", True, episode_id="talk")
    assert {key for key in (await evidence(story)).sums if key[0] == "helpful"} == {("helpful", 0, "tuned")}
    await write_inferences(story.db, [late])
    assert {key for key in (await evidence(story)).sums if key[0] == "helpful"} == {("helpful", 0, "base")}


async def test_a_users_past_counts_though_it_is_written_later(story: Story):
    experiment = await put(story, plan=Plan(primary="helpful", cuped_days=1))
    past = story.inference("ann", "base", experiment=None)
    await story.asked("ann")
    assert (await evidence(story, experiment)).sums["error_rate", 0, "tuned"].m == 0
    await write_inferences(story.db, [past])
    assert (await evidence(story, experiment)).sums["error_rate", 0, "tuned"].m == 1
    said = Feedback("fb-past", "acme", "helpful", True, past.created_at, inference_id=past.id)
    await record(story.db, said, kind=MetricKind.BOOLEAN, digest=b"")
    assert ("helpful", 0, "tuned") not in (await evidence(story, experiment)).sums, "the metric of nobody's present"
    assert (await evidence(story, experiment)).sums["feedback_rate", 0, "tuned"].x == 1


async def test_an_experiment_of_before_has_no_evidence_until_it_is_built_and_results_build_it(story: Story):
    for user in ("ann", "bob", "cat"):
        await story.asked(user)
    async with story.db.transaction() as connection:  # as the migration leaves it
        await connection.execute("TRUNCATE marks, tallied, tallies, totals")
        await connection.execute("INSERT INTO tallied (experiment, generation, recipe) VALUES ('exp-1', 0, '')")
    assert await evidence(story) == Evidence()
    assert (await results(story.db, EXPERIMENT, None)).inferences == 3


@pytest.mark.parametrize("unit", Unit)
async def test_each_kind_of_unit_counts_as_one(story: Story, unit: Unit):
    experiment = await put(story, unit=unit, plan=Plan(primary="helpful"))
    for talk in ("one", "one", "two", None):
        await story.asked("ann", episode=talk)
    found = await evidence(story, experiment)
    assert found.exposed == {(0, "tuned"): {"targeting_key": 1, "episode": 3, "inference": 4}[unit]}


def test_an_experiment_tells_few_tags_apart_and_goes_on_doing_so() -> None:
    words = Words()
    for number in range(TAG_VALUES + 5):
        words.tag("user", str(number))
    assert words.tag("user", "3") == "user=3"
    assert words.tag("user", "24") == "user=other"
    again = Words([(f"k{number}", "v") for number in range(TAG_KEYS)])
    assert (again.tag("k0", "w"), again.tag("more", "v"), again.new) == ("k0=w", "other", [("k0", "w")])
    told = segments(again, input_tokens=None, params='{"metadata": {"language": "pt-BR"}}', messages=None)
    assert told == ("language:pt",)
