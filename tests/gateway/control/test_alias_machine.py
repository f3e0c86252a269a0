"""Any sequence of set, promote, rollback and mirror does to an alias what a small model says, retirement included."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from adapters.ref import AdapterRef
from adapters.store import AdapterStore
from gateway.domain import Adapter, Fallback, Shadow, Variant
from gateway.errors import Conflict, GatewayError
from gateway.store import adapters
from gateway.store.changes import change
from gateway.store.database import Database
from gateway.store.snapshots import read_snapshot
from tests.adapters import sample
from tests.gateway.control.rooms import ME, Rooms

T = TypeVar("T")
VERSIONS = range(1, 4)
weights = st.sampled_from([0.0, 0.5, 1.0, 3.0])
arms = st.lists(
    st.tuples(st.sampled_from("abc"), weights, st.sampled_from([None, *VERSIONS])),
    min_size=1,
    max_size=3,
    unique_by=lambda arm: arm[0],
).filter(lambda arms: any(weight for _, weight, _ in arms))
_tenants = itertools.count(1)


class Machine(RuleBasedStateMachine):
    """The model: variants, previous, shadow and revision of one alias, and which versions are retired."""

    rooms: Rooms
    runner: asyncio.Runner

    @initialize()
    def begin(self) -> None:
        self.tenant = f"t{next(_tenants)}"
        self.variants: tuple[Variant, ...] | None = None
        self.previous: tuple[Variant, ...] | None = None
        self.fallback = Fallback.ERROR
        self.shadow: Shadow | None = None
        self.revision = 0
        self.retired: set[AdapterRef] = set()
        self.run(self._register())

    async def _register(self) -> None:
        await self.rooms.tenants.create(self.tenant, actor=ME)
        made = self.rooms.directory / "adapter"
        for version in VERSIONS:
            manifest = sample.manifest(run_id=f"run-{version}")
            ref = self.rooms.store.publish(made, tenant=self.tenant, name="support", manifest=manifest).ref
            # Straight into the table: that registering inspects is shown elsewhere, and costs the time of ten rules.
            async with change(self.rooms.db, "adapter.register", str(ref), tenant=self.tenant, actor=ME) as new:
                await adapters.insert(new.connection, Adapter(ref, "sha256:0", 4, sample.BASE_MODEL))

    def run(self, work: Awaitable[T]) -> T:
        async def await_it() -> T:
            return await work

        return self.runner.run(await_it())

    def ref(self, version: int | None) -> AdapterRef | None:
        return None if version is None else AdapterRef(self.tenant, "support", version)

    def attempt(self, work: Awaitable[object], wanted: tuple[Variant, ...]) -> bool:
        """Whether it was done. It is refused if, and only if, a version that it wants is retired."""
        allowed = not self.retired & {variant.ref for variant in wanted}
        try:
            self.run(work)
        except GatewayError as error:
            assert isinstance(error, Conflict)
            assert not allowed
            return False
        assert allowed or wanted == self.variants
        return True

    def moved(self, wanted: tuple[Variant, ...], fallback: Fallback | None = None) -> None:
        fallback = fallback or self.fallback
        if (wanted, fallback) != (self.variants, self.fallback):
            self.revision += 1
        if wanted != self.variants:
            self.previous = self.variants
        self.variants, self.fallback = wanted, fallback

    @rule(arms=arms, fallback=st.none() | st.sampled_from(list(Fallback)))
    def set(self, arms: list[tuple[str, float, int | None]], fallback: Fallback | None) -> None:
        wanted = tuple(Variant(name, weight, self.ref(version)) for name, weight, version in arms)
        if self.attempt(self.rooms.aliases.set(self.tenant, "live", wanted, fallback=fallback, actor=ME), wanted):
            self.moved(wanted, fallback)

    @precondition(lambda self: self.variants is not None)
    @rule(version=st.sampled_from(VERSIONS))
    def promote(self, version: int) -> None:
        ref = AdapterRef(self.tenant, "support", version)
        wanted = (Variant("tuned", 1, ref),)
        if self.attempt(self.rooms.aliases.promote(self.tenant, "live", ref, actor=ME), wanted):
            self.moved(wanted)

    @precondition(lambda self: self.variants is not None)
    @rule(version=st.sampled_from(VERSIONS), pick=st.integers(0, 2))
    def promote_one_variant(self, version: int, pick: int) -> None:
        assert self.variants is not None
        name = self.variants[pick % len(self.variants)].name
        ref = AdapterRef(self.tenant, "support", version)
        wanted = tuple(Variant(v.name, v.weight, ref if v.name == name else v.ref) for v in self.variants)
        if self.attempt(self.rooms.aliases.promote(self.tenant, "live", ref, variant=name, actor=ME), wanted):
            self.moved(wanted)

    @precondition(lambda self: self.previous is not None)
    @rule()
    def rollback(self) -> None:
        assert self.previous is not None
        wanted = self.previous
        assert self.attempt(self.rooms.aliases.rollback(self.tenant, "live", actor=ME), wanted)
        self.moved(wanted)

    @precondition(lambda self: self.variants is not None)
    @rule(version=st.sampled_from([None, *VERSIONS]), share=st.sampled_from([None, 0.1, 1.0]))
    def mirror(self, version: int | None, share: float | None) -> None:
        shadow = None if share is None else Shadow(self.ref(version), share)
        refused = shadow is not None and shadow.ref in self.retired
        try:
            self.run(self.rooms.aliases.mirror(self.tenant, "live", shadow, actor=ME))
        except Conflict:
            assert refused
        else:
            assert not refused
            self.revision += shadow != self.shadow
            self.shadow = shadow

    @rule(version=st.sampled_from(VERSIONS))
    def retire(self, version: int) -> None:
        ref = AdapterRef(self.tenant, "support", version)
        needed = {v.ref for v in (*(self.variants or ()), *(self.previous or ()))}
        needed |= {self.shadow.ref} if self.shadow is not None else set()
        try:
            self.run(self.rooms.adapters.retire(ref, actor=ME))
        except Conflict:
            assert ref in needed
        else:
            assert ref not in needed
            self.retired.add(ref)

    @invariant()
    def the_picture_is_the_models(self) -> None:
        if not hasattr(self, "tenant"):
            return
        snapshot = self.run(read_snapshot(self.rooms.db))
        alias = snapshot.aliases.get((self.tenant, "live"))
        if alias is None:
            assert self.variants is None
        else:
            assert (alias.variants, alias.previous, alias.fallback) == (self.variants, self.previous, self.fallback)
            assert (alias.shadow, alias.revision) == (self.shadow, self.revision)
            assert alias.shadow is None or alias.shadow.ref is None or alias.shadow.ref in snapshot.wanted()
        assert snapshot.preparing == frozenset()
        retired = {ref for ref, adapter in snapshot.adapters.items() if adapter.retired and ref.tenant == self.tenant}
        assert retired == self.retired
        assert not retired & snapshot.serving()


@pytest.mark.long
def test_an_alias_is_what_its_history_says(database_url: str, tmp_path: Path) -> None:
    sample.write_adapter(tmp_path / "adapter")
    store = AdapterStore(str(tmp_path / "store"), cache=tmp_path / "cache")
    with asyncio.Runner() as runner:
        db = runner.run(Database.connect(database_url))
        rooms = Rooms(db, store, tmp_path)
        bound: Callable[[], Machine] = type("BoundMachine", (Machine,), {"rooms": rooms, "runner": runner})
        run_state_machine_as_test(
            bound,
            settings=settings(
                max_examples=12, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
        runner.run(db.close())
