"""Adapters, aliases and experiments: the rules of what may point where, without workers to wait for."""

from __future__ import annotations

import asyncio

import pytest

from gateway.domain import Fallback, Variant
from gateway.errors import AdapterRefused, Conflict, InvalidRequest, NotFound
from gateway.store.snapshots import read_version
from tests.adapters import sample
from tests.gateway.control.rooms import ME, Rooms, only


async def test_an_adapter_for_another_base_model_is_refused_with_a_remedy(rooms: Rooms) -> None:
    await rooms.ready()
    made = sample.write_adapter(rooms.directory / "other")
    manifest = sample.manifest(base_model="other/model")
    ref = rooms.store.publish(made, tenant="acme", name="other", manifest=manifest).ref
    with pytest.raises(AdapterRefused) as raised:
        await rooms.adapters.register(ref, actor=ME)
    assert raised.value.message == "Trained on other/model, but demo/tiny is served. Train on the served model."
    assert await rooms.adapters.list("acme") == []


async def test_an_adapter_that_was_tampered_with_in_the_store_is_refused(rooms: Rooms) -> None:
    await rooms.ready()
    ref = rooms.publish()
    weights = rooms.store.open(ref).path / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(AdapterRefused):
        await rooms.adapters.register(ref, actor=ME)


async def test_registering_twice_at_once_is_one_registration(rooms: Rooms) -> None:
    await rooms.ready()
    ref = rooms.publish()
    one, other = await asyncio.gather(*(rooms.adapters.register(ref, actor=ME) for _ in range(2)))
    assert one == other
    assert await rooms.adapters.list("acme") == [one]


async def test_a_version_that_an_alias_needs_cannot_be_retired(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(one), actor=ME)
    for _ in range(2):  # first it serves, then it is what a rollback would bring back
        with pytest.raises(Conflict, match="support"):
            await rooms.adapters.retire(one, actor=ME)
        await rooms.aliases.set("acme", "support", only(two), actor=ME)
    await rooms.aliases.set("acme", "support", only(None), actor=ME)
    assert (await rooms.adapters.retire(one, actor=ME)).retired
    assert (await rooms.adapters.retire(one, actor=ME)).retired
    assert rooms.store.get(one).retired


async def test_a_retired_version_can_be_neither_promoted_nor_registered_again(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    await rooms.adapters.retire(one, actor=ME)
    for attempt in (
        rooms.aliases.set("acme", "support", only(one), actor=ME),
        rooms.adapters.register(one, actor=ME),
    ):
        with pytest.raises(Conflict, match="retired"):
            await attempt


@pytest.mark.parametrize(
    "variants",
    [
        [],
        [Variant("a", 0, None)],
        [Variant("a", -1, None), Variant("b", 2, None)],
        [Variant("a", float("nan"), None)],
        [Variant("a", float("inf"), None)],
        [Variant("a", 1, None), Variant("a", 1, None)],
        [Variant(f"v{i}", 1, None) for i in range(17)],
    ],
)
async def test_traffic_that_cannot_be_split_is_refused(rooms: Rooms, variants: list[Variant]) -> None:
    await rooms.ready()
    with pytest.raises(InvalidRequest):
        await rooms.aliases.set("acme", "support", variants, actor=ME)


async def test_promoting_one_variant_keeps_the_weights(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    split = [Variant("base", 3, None), Variant("tuned", 1, one)]
    await rooms.aliases.set("acme", "support", split, fallback=Fallback.BASE, actor=ME)
    swapped = await rooms.aliases.promote("acme", "support", two, variant="tuned", actor=ME)
    assert swapped.alias.variants == (Variant("base", 3, None), Variant("tuned", 1, two))
    assert swapped.alias.previous == tuple(split)
    assert (swapped.alias.revision, swapped.alias.fallback) == (2, Fallback.BASE)
    assert set(swapped.timings_ms) == {"prepare", "commit", "acknowledge", "total"}
    assert await rooms.aliases.get("acme", "support") == swapped.alias
    with pytest.raises(NotFound):
        await rooms.aliases.promote("acme", "support", two, variant="no-such", actor=ME)
    alone = await rooms.aliases.promote("acme", "support", two, actor=ME)
    assert alone.alias.variants == (Variant("tuned", 1, two),)


async def test_rolling_back_twice_is_where_one_began(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    first = (await rooms.aliases.set("acme", "support", only(one), actor=ME)).alias
    with pytest.raises(Conflict):
        await rooms.aliases.rollback("acme", "support", actor=ME)
    second = (await rooms.aliases.promote("acme", "support", two, actor=ME)).alias
    back = (await rooms.aliases.rollback("acme", "support", actor=ME)).alias
    assert (back.variants, back.previous, back.revision) == (first.variants, second.variants, 3)
    assert (await rooms.aliases.rollback("acme", "support", actor=ME)).alias.variants == second.variants
    async with rooms.db.transaction() as connection:
        history = await connection.fetch("SELECT revision, reason, actor FROM alias_revisions ORDER BY revision")
    assert [(row["revision"], row["reason"]) for row in history] == [
        (1, "set"),
        (2, "promote"),
        (3, "rollback"),
        (4, "rollback"),
    ]


async def test_moving_an_alias_to_where_it_is_changes_nothing(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(one), actor=ME)
    there = (await rooms.aliases.promote("acme", "support", two, actor=ME)).alias
    version = await read_version(rooms.db)
    assert (await rooms.aliases.promote("acme", "support", two, actor=ME)).alias == there
    assert await read_version(rooms.db) == version


async def test_an_experiment_freezes_variants_and_deals_users_out_anew(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    arms = [Variant("base", 1, None), Variant("tuned", 1, one)]
    before = (await rooms.aliases.set("acme", "support", arms, actor=ME)).alias
    made = await rooms.experiments.start("acme", "support", name="first", metric="thumbs", actor=ME)
    after = await rooms.aliases.get("acme", "support")
    assert (after.experiment, after.variants, after.revision) == (made.id, tuple(arms), 2)
    assert after.salt not in (before.salt, made.id)
    assert await rooms.experiments.get(made.id) == made
    with pytest.raises(Conflict, match=made.id):
        await rooms.experiments.start("acme", "support", name="second", actor=ME)
    stopped = await rooms.experiments.stop(made.id, reason="enough", actor=ME)
    assert (stopped.status, stopped.end_reason, stopped.variants) == ("stopped", "enough", tuple(arms))
    assert await rooms.experiments.stop(made.id, reason="again", actor=ME) == stopped
    alone = await rooms.aliases.get("acme", "support")
    assert (alone.experiment, alone.variants, alone.salt) == (None, (arms[0],), after.salt)
    assert alone.previous is None  # the arms are nothing to go back to


async def test_an_experiment_may_bring_its_own_variants(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    await rooms.aliases.set("acme", "support", only(one), actor=ME)
    with pytest.raises(InvalidRequest, match="two variants"):
        await rooms.experiments.start("acme", "support", name="lonely", actor=ME)
    arms = [Variant("old", 1, one), Variant("base", 1, None)]
    await rooms.experiments.start("acme", "support", name="fair", variants=arms, actor=ME)
    alias = await rooms.aliases.get("acme", "support")
    assert alias.variants == tuple(arms)
    assert alias.previous == tuple(only(one))


async def test_changing_the_variants_ends_the_experiment_and_changing_the_fallback_does_not(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    arms = [Variant("base", 1, None), Variant("tuned", 1, one)]
    await rooms.aliases.set("acme", "support", arms, actor=ME)
    made = await rooms.experiments.start("acme", "support", name="first", actor=ME)
    kept = await rooms.aliases.set("acme", "support", arms, fallback=Fallback.PREVIOUS, actor=ME)
    assert kept.alias.experiment == made.id
    moved = await rooms.aliases.promote("acme", "support", two, variant="tuned", actor=ME)
    assert moved.alias.experiment is None
    ended = await rooms.experiments.get(made.id)
    assert ended.status == "stopped"
    assert "promote" in (ended.end_reason or "")


@pytest.mark.parametrize("metric", ["comment", "demonstration", "no-such"])
async def test_an_experiment_needs_a_metric_with_numbers(rooms: Rooms, metric: str) -> None:
    await rooms.ready()
    await rooms.aliases.set("acme", "support", [Variant("a", 1, None), Variant("b", 1, None)], actor=ME)
    with pytest.raises(InvalidRequest):
        await rooms.experiments.start("acme", "support", name="x", metric=metric, actor=ME)
