"""Setting and removing a shadow: a change like any other, that neither waits for what serves nor holds it up."""

from __future__ import annotations

import math

import pytest

from adapters.ref import AdapterRef
from gateway.domain import Alias, Shadow, Variant
from gateway.errors import AdapterRefused, Conflict, InvalidRequest, NotFound
from gateway.experiment import Stage
from gateway.store import audit
from gateway.store.snapshots import read_snapshot
from tests.gateway.control.rooms import ME, Rooms, Worker, only


async def pictured(rooms: Rooms) -> Alias:
    """The alias as the data plane gets it."""
    return (await read_snapshot(rooms.db)).aliases["acme", "support"]


async def history(rooms: Rooms) -> list[tuple[object, ...]]:
    async with rooms.db.transaction() as connection:
        rows = await connection.fetch("SELECT revision, reason, actor, shadow FROM alias_revisions ORDER BY revision")
    return [tuple(row) for row in rows]


async def test_every_worker_holds_the_candidate_before_anything_is_mirrored_to_it(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(one), actor=ME)
    async with Worker("w", rooms.db, load_seconds=0.3).running() as worker:
        swapped = await rooms.aliases.mirror("acme", "support", Shadow(two, 0.1), actor=ME)
        assert worker.resident == {str(one), str(two)}
        assert worker.current.snapshot.aliases["acme", "support"] == swapped.alias == await pictured(rooms)
        assert swapped.alias.shadow == Shadow(two, 0.1)
        assert swapped.timings_ms["prepare"] >= 300
        assert worker.current.snapshot.serving() == {one}
        assert worker.current.snapshot.wanted() == {one, two}
        again = await rooms.aliases.mirror("acme", "support", Shadow(two, 0.1), actor=ME)
        assert again.alias == swapped.alias


async def test_who_gets_what_stays_as_it_was_and_the_history_tells_of_it(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(None), actor=ME)
    arms = [Variant("base", 1, None), Variant("tuned", 1, one)]
    running = await rooms.experiments.start("acme", "support", name="q", variants=arms, actor=ME)
    before = await pictured(rooms)
    await rooms.aliases.mirror("acme", "support", Shadow(two, 0.25), actor="ann")
    after = await pictured(rooms)
    assert (after.variants, after.previous, after.salt) == (before.variants, before.previous, before.salt)
    assert (after.experiment, after.revision) == (running.id, before.revision + 1)
    assert (await rooms.experiments.get(running.id)).status == "running"
    await rooms.experiments.stop(running.id, reason="enough", actor=ME)
    assert (await pictured(rooms)).shadow == Shadow(two, 0.25)
    await rooms.aliases.mirror("acme", "support", None, actor="bob")
    mirror = '{"ref": "acme/support@2", "share": 0.25}'
    assert (await history(rooms))[2:] == [
        (3, "shadow", "ann", mirror),
        (4, "experiment stop", ME, mirror),
        (5, "shadow", "bob", None),
    ]
    told = [one for one in await audit.entries(rooms.db, "acme", 100) if one.action == "alias.shadow"]
    assert [(one.actor, one.subject, one.detail["revision"], one.detail["shadow"]) for one in told] == [
        ("bob", "support", 5, None),
        ("ann", "support", 3, {"ref": "acme/support@2", "share": 0.25}),
    ]


async def test_a_shadow_outlives_promotion_and_rollback(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(one), actor=ME)
    await rooms.aliases.mirror("acme", "support", Shadow(two, 1.0), actor=ME)
    for move in (
        rooms.aliases.promote("acme", "support", two, actor=ME),
        rooms.aliases.rollback("acme", "support", actor=ME),
    ):
        assert (await move).alias.shadow == Shadow(two, 1.0)
    assert (await pictured(rooms)).variants == tuple(only(one))


async def test_a_candidate_that_a_worker_cannot_serve_changes_nothing(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    await rooms.aliases.set("acme", "support", only(None), actor=ME)
    async with Worker("w", rooms.db, refuse="its answers are NaN.").running():
        with pytest.raises(AdapterRefused, match=r"cannot serve acme/support@1: its answers are NaN\."):
            await rooms.aliases.mirror("acme", "support", Shadow(one, 0.1), actor=ME)
    snapshot = await read_snapshot(rooms.db)
    assert snapshot.aliases["acme", "support"].revision == 1 and snapshot.preparing == frozenset()


async def test_a_candidate_gone_bad_holds_up_neither_a_promotion_nor_its_own_removal(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(None), actor=ME)
    await rooms.aliases.mirror("acme", "support", Shadow(two, 0.1), actor=ME)
    async with Worker("w", rooms.db).running() as worker:
        worker.resident.clear()
        worker.failed = {str(two): "its directory is gone."}
        worker.reporter.changed()
        await rooms.aliases.promote("acme", "support", one, actor=ME)
        worker.refuse = "the engine is away."
        await rooms.aliases.mirror("acme", "support", None, actor=ME)
    assert (await pictured(rooms)).shadow is None


async def test_the_base_model_needs_no_preparation_to_be_the_candidate(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    await rooms.aliases.set("acme", "support", only(one), actor=ME)
    await rooms.aliases.mirror("acme", "support", Shadow(None, 0.5), actor=ME)
    assert (await pictured(rooms)).shadow == Shadow(None, 0.5)
    assert (await read_snapshot(rooms.db)).wanted() == {one}


async def test_a_version_that_is_mirrored_to_cannot_be_retired_and_a_retired_one_is_no_candidate(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(one), actor=ME)
    await rooms.aliases.mirror("acme", "support", Shadow(two, 0.1), actor=ME)
    with pytest.raises(Conflict, match="mirrors"):
        await rooms.adapters.retire(two, actor=ME)
    await rooms.aliases.mirror("acme", "support", None, actor=ME)
    await rooms.adapters.retire(two, actor=ME)
    with pytest.raises((Conflict, NotFound)):
        await rooms.aliases.mirror("acme", "support", Shadow(two, 0.1), actor=ME)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, math.nan, math.inf])
async def test_a_share_is_a_share(rooms: Rooms, share: float) -> None:
    await rooms.ready()
    await rooms.aliases.set("acme", "support", only(None), actor=ME)
    with pytest.raises(InvalidRequest):
        await rooms.aliases.mirror("acme", "support", Shadow(None, share), actor=ME)


async def test_a_foreign_candidate_is_an_unknown_one(rooms: Rooms) -> None:
    await rooms.ready(1, tenant="rival")
    await rooms.ready(tenant="acme")
    await rooms.aliases.set("acme", "support", only(None), actor=ME)
    for ref in (AdapterRef("rival", "support", 1), AdapterRef("acme", "support", 9)):
        with pytest.raises(NotFound):
            await rooms.aliases.mirror("acme", "support", Shadow(ref, 0.1), actor=ME)
    with pytest.raises(NotFound):
        await rooms.aliases.mirror("acme", "nothing", None, actor=ME)


async def test_a_change_by_hand_ends_an_experiments_shadow_and_leaves_what_somebody_else_mirrors(rooms: Rooms) -> None:
    [ref] = await rooms.ready(1)
    control, candidate = Variant("base", 1.0, None), Variant("tuned", 1.0, ref)
    await rooms.aliases.set("acme", "support", [control], actor=ME)
    one = await rooms.experiments.start(
        "acme", "support", name="q", candidates=[candidate], stage=Stage.SHADOW, actor=ME
    )
    assert (await pictured(rooms)).shadow is not None
    changed = await rooms.aliases.promote("acme", "support", ref, actor=ME)
    assert (changed.alias.shadow, changed.alias.experiment) == (None, None)
    assert await pictured(rooms) == changed.alias
    assert (await rooms.experiments.get(one.id)).stage is Stage.STOPPED
    await rooms.aliases.set("acme", "support", [control, Variant("same", 1.0, None)], actor=ME)
    await rooms.experiments.start("acme", "support", name="another", actor=ME)
    await rooms.aliases.mirror("acme", "support", Shadow(ref, 0.2), actor=ME)
    assert (await rooms.aliases.set("acme", "support", [control], actor=ME)).alias.shadow == Shadow(ref, 0.2)
