# long because: one machine, whose rules share a model.
"""Any sequence of steps leads an experiment only where it may go, and alias, experiment and audit log always agree."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from adapters.ref import AdapterRef
from adapters.store import AdapterStore
from gateway.control.buckets import GRAIN, measure, shares
from gateway.domain import Adapter, Alias, Shadow, Variant
from gateway.errors import Conflict, GatewayError, InvalidRequest, NotFound
from gateway.experiment import Experiment, Stage
from gateway.store import adapters, audit
from gateway.store.changes import change
from gateway.store.database import Database
from gateway.store.snapshots import read_snapshot, read_version
from tests.adapters import sample
from tests.gateway.control.rooms import ME, Rooms

T = TypeVar("T")
ALIASES = ("left", "right")
aliases = st.sampled_from(ALIASES)
coverages = st.sampled_from([0.05, 0.3, 0.5, 0.7, 1.0])
RUNNING = (Stage.SHADOW, Stage.CANARY, Stage.EXPERIMENT)
WAYS = {
    Stage.SHADOW: {Stage.SHADOW, Stage.CANARY, Stage.ROLLED_BACK, Stage.STOPPED},
    Stage.CANARY: {Stage.CANARY, Stage.EXPERIMENT, Stage.PROMOTED, Stage.ROLLED_BACK, Stage.STOPPED},
    Stage.EXPERIMENT: {Stage.EXPERIMENT, Stage.PROMOTED, Stage.ROLLED_BACK, Stage.STOPPED},
}
_tenants = itertools.count(1)


class Machine(RuleBasedStateMachine):
    """The model: of each alias its experiment as it was after the last step, and what the alias served before it."""

    rooms: Rooms
    runner: asyncio.Runner

    @initialize()
    def begin(self) -> None:
        self.tenant = f"t{next(_tenants)}"
        self.known: dict[str, Experiment] = {}
        self.testers: dict[str, set[str]] = {name: set() for name in ALIASES}
        self.starts, self.tried = 0, set[str]()
        self.run(self._register())
        self.base = Variant("base", 1.0, None)
        self.tuned = Variant("tuned", 1.0, AdapterRef(self.tenant, "support", 1))
        self.previous: dict[str, tuple[Variant, ...] | None] = dict.fromkeys(ALIASES)
        for name in ALIASES:
            self.run(self.rooms.aliases.set(self.tenant, name, [self.base], actor=ME))

    async def _register(self) -> None:
        await self.rooms.tenants.create(self.tenant, actor=ME)
        made = self.rooms.directory / "adapter"
        ref = self.rooms.store.publish(made, tenant=self.tenant, name="support", manifest=sample.manifest()).ref
        async with change(self.rooms.db, "adapter.register", str(ref), tenant=self.tenant, actor=ME) as new:
            await adapters.insert(new.connection, Adapter(ref, "sha256:0", 4, sample.BASE_MODEL))

    def run(self, work: Awaitable[T]) -> T:
        async def await_it() -> T:
            return await work

        return self.runner.run(await_it())

    def pictured(self, name: str) -> Alias:
        return self.run(read_snapshot(self.rooms.db)).aliases[self.tenant, name]

    def step(
        self, name: str, action: str, take: Callable[[str], Awaitable[Experiment]], *, allowed: bool
    ) -> Experiment | None:
        """Take a step of the alias's last experiment. It is refused if, and only if, it is not `allowed`; what is
        refused changes nothing, and what changes something is one row of the audit log."""
        if name not in self.known:
            return None
        before, version = self.known[name], self.run(read_version(self.rooms.db))
        try:
            after = self.run(take(before.id))
        except GatewayError as error:
            assert isinstance(error, Conflict | InvalidRequest | NotFound) and not allowed, error
            assert self.run(read_version(self.rooms.db)) == version
            return None
        assert allowed, f"{action} of {before.stage} went through"
        if after != before:
            [told, *_] = self.run(audit.entries(self.rooms.db, self.tenant, 1))
            assert (told.action, told.subject, told.actor) == (f"experiment.{action}", before.id, ME)
            assert told.detail["alias"] == name and told.detail["stage"] == after.stage.value
            assert after.stage in WAYS[before.stage]
        else:
            assert self.run(read_version(self.rooms.db)) == version
        self.known[name] = after
        return after

    def revive(self, name: str) -> None:
        """Most rules want something that runs. One that has ended is tried once before the next one begins."""
        if self.live(name) is None and (name not in self.known or self.known[name].id in self.tried):
            self.starts += 1
            stage, layered = RUNNING[self.starts % 3], self.starts % 4 < 3
            coverage = 0.5 if not layered or self.room(name) >= 0.5 else 0.05
            self.start_one(name, stage, coverage, layered, (1.0, 1.0))
        elif self.live(name) is None:
            self.tried.add(self.known[name].id)

    def live(self, name: str) -> Experiment | None:
        one = self.known.get(name)
        return one if one is not None and not one.stage.ended else None

    def room(self, name: str) -> float:
        """What others leave of the layer, if this one's is in it."""
        others = [one for other in ALIASES if other != name and (one := self.live(other)) is not None]
        return 1.0 - sum(measure(one.split.stretches) for one in others if one.layer and one.split)

    @rule(
        name=aliases,
        stage=st.sampled_from(list(Stage)),
        coverage=coverages,
        layered=st.booleans(),
        weights=st.tuples(st.sampled_from([0.0, 1.0, 3.0]), st.sampled_from([0.0, 1.0])),
    )
    def start(self, name: str, stage: Stage, coverage: float, layered: bool, weights: tuple[float, float]) -> None:
        self.start_one(name, stage, coverage, layered, weights)

    def start_one(self, name: str, stage: Stage, coverage: float, layered: bool, weights: tuple[float, float]) -> None:
        control = self.pictured(name).variants[0]
        candidate = self.tuned if control.ref is None else self.base
        arms = [Variant("now", weights[0], control.ref), Variant(candidate.name + "2", weights[1], candidate.ref)]
        now = coverage if stage is Stage.EXPERIMENT else min(0.05, coverage) if stage is Stage.CANARY else 0.0
        allowed = stage in RUNNING and all(weights) and self.live(name) is None
        allowed = allowed and (not layered or now <= self.room(name) + GRAIN)
        before = self.pictured(name)
        work = self.rooms.experiments.start(
            self.tenant, name, name="q", variants=arms, stage=stage, coverage=coverage,
            layer="shared" if layered else None, actor=ME,
        )  # fmt: skip
        try:
            begun = self.run(work)
        except GatewayError as error:
            assert isinstance(error, Conflict | InvalidRequest) and not allowed, error
            assert self.pictured(name) == before
            return
        assert allowed
        self.known[name], self.testers[name] = begun, set()
        after = self.pictured(name)
        self.previous[name] = before.previous if after.variants == before.variants else before.variants
        assert after.salt != before.salt

    @rule(name=aliases)
    def pause(self, name: str) -> None:
        self.revive(name)
        one = self.live(name)
        allowed = one is not None and one.stage is not Stage.SHADOW
        if after := self.step(
            name, "pause", lambda one_id: self.rooms.experiments.pause(one_id, actor=ME), allowed=allowed
        ):
            assert after.paused

    @rule(name=aliases)
    def resume(self, name: str) -> None:
        self.revive(name)
        allowed = self.live(name) is not None
        if after := self.step(
            name, "resume", lambda one_id: self.rooms.experiments.resume(one_id, actor=ME), allowed=allowed
        ):
            assert not after.paused

    @rule(name=aliases)
    def advance(self, name: str) -> None:
        self.revive(name)
        one = self.live(name)
        allowed = one is not None and not one.paused and one.stage is not Stage.EXPERIMENT
        if one is not None and allowed and one.layer:
            wanted = one.coverage if one.stage is Stage.CANARY else one.canary_coverage
            allowed = wanted <= self.room(name) + GRAIN
        before = self.known.get(name)
        if after := self.step(
            name, "advance", lambda one_id: self.rooms.experiments.advance(one_id, why="so", actor=ME), allowed=allowed
        ):
            assert before is not None and RUNNING.index(after.stage) == RUNNING.index(before.stage) + 1
            if before.stage is Stage.SHADOW:
                self.previous[name] = (Variant("now", 1.0, after.control.ref),)

    @rule(name=aliases, coverage=coverages)
    def widen(self, name: str, coverage: float) -> None:
        self.revive(name)
        one = self.live(name)
        allowed = one is not None and coverage >= one.canary_coverage
        if one is not None and one.stage is Stage.EXPERIMENT:
            allowed = coverage >= one.coverage and (not one.layer or coverage <= self.room(name) + GRAIN)
        self.step(
            name, "coverage", lambda one_id: self.rooms.experiments.widen(one_id, coverage, actor=ME), allowed=allowed
        )

    @rule(name=aliases, weights=st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.sampled_from([0.0, 1.0, 2.0, 5.0])))
    def reweight(self, name: str, weights: tuple[float, float]) -> None:
        self.revive(name)
        one = self.live(name)
        now, tuned = (variant.weight for variant in one.variants) if one is not None else (0.0, 0.0)
        same = all(weights) and now * weights[1] == tuned * weights[0]
        allowed = one is not None and all(weights) and (same or one.stage is not Stage.SHADOW)
        epochs = len(one.epochs) if one else 0
        if after := self.step(
            name,
            "weights",
            lambda one_id: self.rooms.experiments.reweight(one_id, weights, why="so", actor=ME),
            allowed=allowed,
        ):
            assert len(after.epochs) == epochs + (not same)

    @rule(name=aliases, user=st.sampled_from(["ann", "bob"]), variant=st.sampled_from([None, "now", "no-such"]))
    def override(self, name: str, user: str, variant: str | None) -> None:
        self.revive(name)
        one = self.live(name)
        allowed = one is not None and one.stage is not Stage.SHADOW and variant != "no-such"
        if self.step(
            name,
            "override",
            lambda one_id: self.rooms.experiments.override(one_id, user, variant, actor=ME),
            allowed=allowed,
        ):
            (self.testers[name].add if variant else self.testers[name].discard)(user)

    @rule(name=aliases, way=st.sampled_from(["promote", "rollback", "stop"]))
    def end(self, name: str, way: str) -> None:
        self.revive(name)
        one, rooms = self.live(name), self.rooms.experiments
        known = self.known.get(name)
        if known is None:
            return
        allowed = one is not None and (way != "promote" or one.stage is not Stage.SHADOW)
        allowed |= way == "stop" or (way == "rollback" and known.stage is Stage.ROLLED_BACK)
        winner = known.variants[1].name
        ways: dict[str, Callable[[str], Awaitable[Experiment]]] = {
            "promote": lambda one_id: rooms.promote(one_id, winner, why="better", figures={"lift": 0.2}, actor=ME),
            "rollback": lambda one_id: rooms.roll_back(one_id, why="worse", actor=ME),
            "stop": lambda one_id: rooms.stop(one_id, reason="enough", actor=ME),
        }
        after = self.step(name, way, ways[way], allowed=allowed)
        if after is None or one is None:
            return
        alias = self.pictured(name)
        [left] = alias.variants
        assert left == Variant(after.variants[way == "promote"].name, 1.0, after.variants[way == "promote"].ref)
        if way == "promote":
            assert alias.previous == (Variant("now", 1.0, after.control.ref),)
            [told, *_] = self.run(audit.entries(self.rooms.db, self.tenant, 1))
            assert (told.detail["why"], told.detail["figures"], told.detail["variant"]) == (
                "better",
                {"lift": 0.2},
                winner,
            )
        else:
            assert alias.previous == self.previous[name]
        assert after.end_reason in ("better", "worse", "enough")

    @rule(name=aliases)
    def change_by_hand(self, name: str) -> None:
        before = self.pictured(name)
        wanted = (self.base if before.variants[0].ref is not None else self.tuned,)
        self.run(self.rooms.aliases.set(self.tenant, name, wanted, actor=ME))
        if (one := self.live(name)) is not None:
            ended = self.run(self.rooms.experiments.get(one.id))
            assert ended.stage is Stage.STOPPED and "the alias was changed" in (ended.end_reason or "")
            self.known[name] = ended
            self.run(self.rooms.aliases.mirror(self.tenant, name, None, actor=ME))

    @invariant()
    def alias_and_experiment_agree(self) -> None:
        if not hasattr(self, "known"):
            return
        snapshot = self.run(read_snapshot(self.rooms.db))
        assert snapshot.preparing == frozenset()
        for name, one in self.known.items():
            alias = snapshot.aliases[self.tenant, name]
            assert self.run(self.rooms.experiments.get(one.id)) == one
            if one.stage.ended:
                assert (alias.experiment, alias.split, one.split, one.paused) == (None, None, None, False)
                assert alias.shadow is None and len(alias.variants) == 1
                continue
            assert alias.experiment == one.id
            assert alias.split == (None if one.paused else one.split)
            if one.stage is Stage.SHADOW:
                assert one.split is None and alias.shadow == Shadow(one.variants[1].ref, 0.1)
                assert alias.variants == (Variant("now", 1.0, one.control.ref),)
                continue
            assert one.split is not None and alias.shadow is None and alias.variants == one.variants
            covered = one.coverage if one.stage is Stage.EXPERIMENT else one.canary_coverage
            assert abs(measure(one.split.stretches) - covered) <= GRAIN
            total = sum(variant.weight for variant in one.variants)
            for variant in one.variants:
                assert abs(shares(one.split.buckets)[variant.name] - variant.weight / total) <= 4 * GRAIN
            assert len(one.split.overrides) == len(self.testers[name])
            assert one.epochs[-1].weights == tuple(variant.weight for variant in one.variants)

    @invariant()
    def nobody_is_in_two_of_the_layer(self) -> None:
        if hasattr(self, "known"):
            layered = [one for name in ALIASES if (one := self.live(name)) is not None and one.layer and one.split]
            held = sorted(stretch for one in layered if one.split for stretch in one.split.stretches)
            assert all(high <= low for (_, high), (low, _) in itertools.pairwise(held))
            assert len({one.split.salt for one in layered if one.split}) <= 1


@pytest.mark.long
def test_an_experiment_goes_only_where_it_may(database_url: str, tmp_path: Path) -> None:
    sample.write_adapter(tmp_path / "adapter")
    store = AdapterStore(str(tmp_path / "store"), cache=tmp_path / "cache")
    with asyncio.Runner() as runner:
        db = runner.run(Database.connect(database_url))
        bound: Callable[[], Machine] = type(
            "BoundMachine", (Machine,), {"rooms": Rooms(db, store, tmp_path), "runner": runner}
        )
        run_state_machine_as_test(
            bound,
            settings=settings(
                max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        runner.run(db.close())
