"""Whatever comes, in whatever order: tallies kept current, tallies rebuilt and plain Python come to the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from gateway.control.metrics import Metrics
from gateway.domain import Feedback, Inference, Metric, MetricKind, Unit
from gateway.experiment import Epoch, Experiment, Guardrail, Plan
from gateway.feedback.tallies import Tallies
from gateway.store import erasures, experiments, recipes
from gateway.store import feedback as feedback_rows
from gateway.store.automatic import Price
from gateway.store.database import Database
from gateway.store.inferences import write_inferences
from tests.gateway.feedback.stories import BEGAN, EXPERIMENT, Story, begin
from tests.gateway.feedback.tallied import Whole, modelled, raw, tallied

T = TypeVar("T")
PRICE = Price(Decimal("0.000002"), Decimal("0.00001"), "EUR")
RATIOS = {"stars_per_click": ("stars", "clicks")}
KINDS = {"helpful": "boolean", "escalated": "boolean", "stars": "float", "clicks": "count"}
_numbers = itertools.count(1)

users = st.sampled_from(["ann", "bob", "cat"])
talks = st.sampled_from([None, None, "talk", "chat"])


async def declare(story: Story) -> None:
    await Metrics(story.db).declare(Metric("acme", "clicks", MetricKind.COUNT), actor="test")
    ratio = Metric("acme", "stars_per_click", MetricKind.RATIO, numerator="stars", denominator="clicks")
    await Metrics(story.db).declare(ratio, actor="test")
    async with story.db.transaction() as connection:
        await recipes.set_price(connection, PRICE)


class Machine(RuleBasedStateMachine):
    """Rows are written with chosen times, some of them late; each run has an experiment and users of its own."""

    story: Story
    runner: asyncio.Runner

    @initialize(
        unit=st.sampled_from([*Unit, Unit.TARGETING_KEY, Unit.TARGETING_KEY]),
        cuped=st.sampled_from([1, 0, 1]),
        rebuilds=st.sampled_from([False, False, True]),
    )
    def begin(self, unit: Unit, cuped: int, rebuilds: bool) -> None:
        self.rebuilds = rebuilds  # not always: what is rebuilt in the midst hides what was forgotten before
        self.number = next(_numbers)
        plan = Plan("helpful", guardrails=(Guardrail("stars_per_click", 0.1),), cuped_days=cuped)
        self.experiment: Experiment = replace(
            EXPERIMENT,
            id=f"run-{self.number}",
            alias=f"alias-{self.number}",
            unit=unit,
            plan=plan,
            epochs=(Epoch(2, BEGAN, (1.0, 1.0)),),
        )
        self.known: list[str] = []
        self.held: list[Inference] = []
        self.tallies = Tallies(self.story.db)
        self.run(self._put())

    async def _put(self) -> None:
        async with self.story.db.transaction() as connection:
            await experiments.put(connection, self.experiment)

    def run(self, work: Awaitable[T]) -> T:
        async def await_it() -> T:
            return await work

        return self.runner.run(await_it())

    def mine(self, name: str | None) -> str | None:
        return None if name is None else f"{name}-{self.number}"

    @rule(
        user=users,
        tuned=st.booleans(),
        minute=st.integers(0, 40),
        talk=talks,
        how=st.sampled_from(["ok", "ok", "ok", "engine_error", "disconnected"]),
        says=st.sampled_from(["hi", "ho"]),
        inside=st.sampled_from([True, True, True, False]),
        odd=st.sampled_from(["", "", "", "refuses", "bare", "falls back", "pinned", "tagged", "long"]),
        late=st.sampled_from([False, False, True]),
    )
    def ask(  # long because: a request has many sides
        self,
        user: str,
        tuned: bool,
        minute: int,
        talk: str | None,
        how: str,
        says: str,
        inside: bool,
        odd: str,
        late: bool,
    ) -> None:
        changed: dict[str, Any] = {
            "created_at": BEGAN + timedelta(minutes=minute),
            "alias": self.experiment.alias,
            "alias_revision": self.experiment.epochs[-1].revision,
            "experiment": self.experiment.id if inside else None,
            "episode": self.mine(talk),
            "outcome": how,
            "ttft_ms": 20.5 + minute if how == "ok" else None,
            "duration_ms": 100.25 * (1 + minute),
            "messages": [{"role": "user", "content": says}],
            "output_tokens": None if how == "engine_error" else 4 + minute,
        }
        if odd == "bare":
            changed |= {"messages": None, "answer": None}
        changed |= {
            "refuses": {"answer": "I'm sorry, no."},
            "falls back": {"served": "base"},
            "pinned": {"reason": "targeting_match"},
            "tagged": {"params": {"metadata": {"plan": "pro"}}},
            "long": {"input_tokens": 2500},
        }.get(odd, {})
        fresh = self.story.inference(str(self.mine(user)), "tuned" if tuned else "base", **changed)
        self.known.append(fresh.id)
        if late:
            self.held.append(fresh)
        else:
            self.run(write_inferences(self.story.db, [fresh]))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        batch = data.draw(st.lists(st.sampled_from(self.held), min_size=1, unique_by=lambda one: one.id))
        self.held = [one for one in self.held if one not in batch]
        self.run(write_inferences(self.story.db, batch))

    @precondition(lambda self: self.known)
    @rule(
        data=st.data(),
        metric=st.sampled_from(sorted(KINDS)),
        value=st.sampled_from([0, 1, 1]),
        source=st.sampled_from([None, "user"]),
        talk=talks,
        minute=st.integers(0, 60),
        correction=st.sampled_from([None, None, "another answer"]),
    )
    def judge(  # long because: so has a judgement
        self,
        data: st.DataObject,
        metric: str,
        value: int,
        source: str | None,
        talk: str | None,
        minute: int,
        correction: str | None,
    ) -> None:
        about = data.draw(st.sampled_from(self.known)) if talk is None else None
        said = Feedback(
            f"fb-{self.number}-{next(_numbers)}",
            "acme",
            metric,
            float(value) * (2.5 if metric == "stars" else 1),
            BEGAN + timedelta(minutes=minute),
            inference_id=about,
            episode_id=self.mine(talk),
            correction=correction if about else None,
            source=source,
        )
        kind = MetricKind(KINDS[metric])
        self.run(feedback_rows.record(self.story.db, said, kind=kind, digest=b""))

    @rule(user=users)
    def erase(self, user: str) -> None:
        unit = self.story.inference(str(self.mine(user))).unit
        self.run(erasures.erase(self.story.db, "acme", unit, actor="test"))

    @rule()
    def reweigh(self) -> None:
        last = self.experiment.epochs[-1]
        epoch = Epoch(last.revision + 1, last.since, (1.0, 3.0))
        self.experiment = replace(self.experiment, epochs=(*self.experiment.epochs, epoch))
        self.run(self._put())

    @rule(limit=st.integers(1, 6))
    def catch_up(self, limit: int) -> None:
        self.run(self.tallies.catch_up(limit=limit))

    @rule()
    def look(self) -> None:
        self.run(self._current_agrees())

    @precondition(lambda self: self.rebuilds)
    @rule()
    def begin_rebuild(self) -> None:
        self.run(self.tallies.begin_rebuild(self.experiment.id))

    @rule()
    def build(self) -> None:
        self.run(self.tallies.build(limit=1))

    @rule(limit=st.integers(1, 6))
    def three_work_at_once(self, limit: int) -> None:
        async def all_of_it() -> None:
            work = (self.tallies.catch_up(limit=limit), self.tallies.catch_up(), self.tallies.build(limit=1))
            await asyncio.gather(*work)

        self.run(all_of_it())

    def teardown(self) -> None:
        if hasattr(self, "tallies"):
            self.run(self._agree())

    async def _agree(self) -> None:
        if self.held:
            await write_inferences(self.story.db, self.held)
        expected = await self._current_agrees()
        while await self.tallies.build():
            pass
        if expected.units:
            assert await tallied(self.story.db, self.experiment) == expected, "what was begun to be rebuilt on the way"
            await self.tallies.rebuild(self.experiment.id, limit=2)
            assert await tallied(self.story.db, self.experiment) == expected

    async def _current_agrees(self) -> Whole:
        while await self.tallies.catch_up(limit=3):
            pass
        expected = modelled(await raw(self.story.db, "acme"), self.experiment, price=PRICE, ratios=RATIOS)
        if expected.units:
            kept = await tallied(self.story.db, self.experiment)
            assert kept.units == expected.units
            assert kept.totals == expected.totals
        return expected


@pytest.mark.long
def test_tallies_kept_current_and_rebuilt_come_to_what_plain_python_does(database_url: str) -> None:
    # One event loop for all runs: the database's connections belong to it.
    with asyncio.Runner() as runner:
        database = runner.run(Database.connect(database_url))
        Machine.runner, Machine.story = runner, runner.run(begin(database))
        runner.run(declare(Machine.story))
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
                ),
            )
        finally:
            runner.run(database.close())
