"""What its gate refused, or has not decided about, is registered, listed, evaluated and retired, and never serves."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.manifest import Gate
from adapters.ref import AdapterRef
from gateway.domain import Shadow, Variant
from gateway.errors import Conflict
from gateway.store.snapshots import read_snapshot, read_version
from tests.adapters import sample
from tests.gateway.control.rooms import ME, Rooms, only

REASON = "f1 0.81 against 0.84 of acme/support@1, and it had to be better by 0.01"


async def judged(rooms: Rooms, verdict: Any, *, seed: int = 7, name: str = "support") -> AdapterRef:
    """A registered version with this verdict in its manifest."""
    made = sample.write_adapter(rooms.directory / f"{name}-{seed}", seed=seed)
    manifest = sample.manifest(gate=Gate(verdict=verdict, reason=f"{REASON}."))
    ref = rooms.store.publish(made, tenant="acme", name=name, manifest=manifest).ref
    assert (await rooms.adapters.register(ref, actor=ME)).verdict == verdict
    return ref


@pytest.mark.parametrize("verdict", ["refused", "undecided"])
async def test_a_withheld_version_comes_to_serve_in_no_way(rooms: Rooms, verdict: str) -> None:
    [good] = await rooms.ready(1)
    ref = await judged(rooms, verdict)
    await rooms.aliases.set("acme", "support", [Variant("base", 1, None), Variant("tuned", 1, good)], actor=ME)
    before, arms = await rooms.aliases.get("acme", "support"), [Variant("base", 1, None), Variant("new", 1, ref)]
    ways = [
        rooms.aliases.set("acme", "other", only(ref), actor=ME),
        rooms.aliases.set("acme", "support", arms, actor=ME),
        rooms.aliases.set("acme", "support", [arms[0], Variant("new", 0, ref)], actor=ME),
        rooms.aliases.promote("acme", "support", ref, actor=ME),
        rooms.aliases.promote("acme", "support", ref, variant="tuned", actor=ME),
        rooms.experiments.start("acme", "support", name="x", variants=arms, actor=ME),
        rooms.aliases.mirror("acme", "support", Shadow(ref, 0.5), actor=ME),
    ]
    version = await read_version(rooms.db)
    for way in ways:
        with pytest.raises(Conflict) as refused:
            await way
        assert refused.value.code == f"version_{verdict}"
        assert REASON in refused.value.message and "  " not in refused.value.message
        assert (await rooms.aliases.get("acme", "support"), await read_version(rooms.db)) == (before, version)


async def test_a_rollback_to_what_was_withheld_since_is_refused_too(rooms: Rooms) -> None:
    """It cannot be so today: a verdict never changes. A backup that was restored, or a hand in the database, could."""
    one, two = await rooms.ready(1, 2)
    for ref in (one, two):
        await rooms.aliases.set("acme", "support", only(ref), actor=ME)
    async with rooms.db.transaction() as connection:
        await connection.execute("UPDATE adapters SET verdict = 'refused', verdict_reason = 'worse' WHERE version = 1")
    with pytest.raises(Conflict) as refused:
        await rooms.aliases.rollback("acme", "support", actor=ME)
    assert refused.value.code == "version_refused"


async def test_the_verdict_is_listed_in_the_snapshot_and_kept_when_it_is_registered_again(rooms: Rooms) -> None:
    [plain] = await rooms.ready(1)
    accepted = await judged(rooms, "accepted")
    refused = await judged(rooms, "refused", seed=8)
    trial = await judged(rooms, "undecided", name="support.trial")
    assert (await rooms.adapters.register(refused, actor=ME)).verdict == "refused"
    listed = {row.ref: (row.verdict, row.reason) for row in await rooms.adapters.list("acme")}
    assert listed == {
        plain: (None, None),
        accepted: ("accepted", f"{REASON}."),
        refused: ("refused", f"{REASON}."),
        trial: ("undecided", f"{REASON}."),
    }
    known = (await read_snapshot(rooms.db)).adapters
    assert {ref for ref, adapter in known.items() if adapter.servable} == {plain, accepted}


async def test_an_accepted_version_serves_and_a_withheld_one_can_be_retired(rooms: Rooms) -> None:
    await rooms.ready()
    accepted, refused = await judged(rooms, "accepted"), await judged(rooms, "refused", seed=8)
    await rooms.aliases.set("acme", "support", only(accepted), actor=ME)
    retired = await rooms.adapters.retire(refused, actor=ME)
    assert (retired.retired, retired.verdict) == (True, "refused")
    with pytest.raises(Conflict, match="is retired"):
        await rooms.aliases.promote("acme", "support", refused, actor=ME)
