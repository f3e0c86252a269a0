"""Experiments: what a start is refused for and with which remedy, layers, and workers that take every step along."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from adapters.ref import AdapterRef
from gateway.control.buckets import measure
from gateway.domain import Fallback, Metric, MetricKind, Reason, Shadow, Tenant, Unit, Variant, WorkerReport
from gateway.errors import Conflict, GatewayError, InvalidRequest, Unavailable
from gateway.experiment import Allocation, By, Experiment, Guardrail, Plan, Stage
from gateway.serving.routing import assign
from gateway.store import audit, workers
from gateway.store.snapshots import read_snapshot, read_version
from tests.gateway.control.rooms import ME, Rooms, Worker, only

USERS = [f"user-{n}" for n in range(400)]


def arms(ref: AdapterRef | None) -> list[Variant]:
    return [Variant("base", 1, None), Variant("tuned", 1, ref)]


async def compared(rooms: Rooms, **more: Any) -> Experiment:
    """An experiment on `support` of a new tenant, of base against `support@1`."""
    [one] = await rooms.ready(1)
    await rooms.aliases.set("acme", "support", only(None, "base"), actor=ME)
    return await rooms.experiments.start("acme", "support", name="q", variants=arms(one), actor=ME, **more)


async def drawn(rooms: Rooms, alias: str = "support") -> dict[str, tuple[str, str | None]]:
    """Each user's variant and experiment, as a worker that reads the picture now has it."""
    snapshot = await read_snapshot(rooms.db)
    found = {user: assign(snapshot, Tenant("acme"), alias, user) for user in USERS}
    return {user: (one.variant, one.experiment) for user, one in found.items()}


@pytest.mark.long
async def test_from_canary_to_promotion_nobody_changes_arms_and_the_log_tells_who_and_why(rooms: Rooms) -> None:
    one = await compared(rooms, stage=Stage.CANARY, canary_coverage=0.2, coverage=0.6, owner="ann")
    canary = await drawn(rooms)
    wide = await rooms.experiments.advance(one.id, why="guardrails held", figures={"errors": 0.01}, actor="bob")
    assert (wide.stage, wide.owner, len(wide.epochs)) == (Stage.EXPERIMENT, "ann", 1)
    later = await drawn(rooms)
    assert {user: arm for user, arm in later.items() if canary[user][1]}.items() <= canary.items()
    inside = [sum(found[1] is not None for found in each.values()) / len(USERS) for each in (canary, later)]
    assert inside == [pytest.approx(0.2, abs=0.08), pytest.approx(0.6, abs=0.1)]
    await rooms.experiments.pause(one.id, why="incident", actor="eve")
    assert set((await drawn(rooms)).values()) == {("base", None)}
    await rooms.experiments.resume(one.id, actor="eve")
    assert await drawn(rooms) == later
    await rooms.experiments.widen(one.id, 1.0, actor="bob")
    assert {user: arm for user, arm in (await drawn(rooms)).items() if later[user][1]}.items() <= later.items()
    done = await rooms.experiments.promote(one.id, "tuned", why="ship", figures={"lift": 0.1}, actor="rule")
    assert (done.stage, done.end_reason, done.split) == (Stage.PROMOTED, "ship", None)
    assert set((await drawn(rooms)).values()) == {("tuned", None)}
    told = [row for row in await audit.entries(rooms.db, "acme", 9) if row.subject == one.id]
    assert [(row.action, row.actor, row.detail.get("why")) for row in reversed(told)] == [
        ("experiment.start", ME, None),
        ("experiment.advance", "bob", "guardrails held"),
        ("experiment.pause", "eve", "incident"),
        ("experiment.resume", "eve", None),
        ("experiment.coverage", "bob", None),
        ("experiment.promote", "rule", "ship"),
    ]
    assert told[-2].detail["figures"] == {"errors": 0.01} and told[0].detail["variant"] == "tuned"
    back = await rooms.aliases.rollback("acme", "support", actor=ME)
    assert back.alias.variants == (Variant("base", 1.0, None),), "by hand one comes back to the control"


async def test_a_shadow_becomes_a_canary_and_takes_its_mirror_along(rooms: Rooms) -> None:
    one = await compared(rooms, stage=Stage.SHADOW, shadow_share=0.4)
    alias = await rooms.aliases.get("acme", "support")
    assert (alias.shadow, alias.variants) == (Shadow(one.variants[1].ref, 0.4), (Variant("base", 1, None),))
    assert set((await drawn(rooms)).values()) == {("base", None)}
    for refused in (
        rooms.experiments.pause(one.id, actor=ME),
        rooms.experiments.promote(one.id, "tuned", why="hope", actor=ME),
        rooms.experiments.reweight(one.id, [1, 2], why="so", actor=ME),
        rooms.experiments.override(one.id, "ann", "tuned", actor=ME),
    ):
        with pytest.raises(Conflict) as told:
            await refused
        assert "Advance it to the canary first" in told.value.message
    canary = await rooms.experiments.advance(one.id, why="no errors", actor=ME)
    alias = await rooms.aliases.get("acme", "support")
    assert (alias.shadow, alias.variants, alias.split) == (None, canary.variants, canary.split)
    assert canary.epochs[0].revision == alias.revision, "nobody was exposed before"
    control = (Variant("base", 1.0, None),)
    assert alias.previous == control, "what serves instead of a candidate, and where one gets back to by hand"
    assert (await rooms.aliases.rollback("acme", "support", actor=ME)).alias.variants == control


async def test_no_way_back_by_hand_leads_to_the_arms_of_an_experiment(rooms: Rooms) -> None:
    one = await compared(rooms, stage=Stage.CANARY, canary_coverage=0.001)
    control = (Variant("base", 1.0, None),)
    for _ in range(2):  # the second is somebody who wants to undo the first
        alias = (await rooms.aliases.rollback("acme", "support", actor=ME)).alias
        assert (alias.variants, alias.experiment, alias.split) == (control, None, None)
    assert (await rooms.experiments.get(one.id)).stage is Stage.STOPPED
    await rooms.experiments.start("acme", "support", name="again", variants=arms(one.variants[1].ref), actor=ME)
    await rooms.aliases.set("acme", "support", only(one.variants[1].ref), actor=ME)
    assert (await rooms.aliases.rollback("acme", "support", actor=ME)).alias.variants == control


async def test_an_experiment_may_start_from_candidates_alone(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    await rooms.aliases.set("acme", "support", only(None, "base"), actor=ME)
    candidates = [Variant("tuned", 2, one)]
    made = await rooms.experiments.start("acme", "support", name="q", candidates=candidates, actor=ME)
    assert made.variants == (Variant("base", 1.0, None), *candidates)
    assert (made.owner, made.unit, made.canary_coverage) == (ME, Unit.TARGETING_KEY, 0.05)


GUARDED = Plan(primary="thumbs", secondaries=("latency",), guardrails=(Guardrail("error_rate", 0.02),))


async def test_what_is_fixed_at_the_start_comes_back_as_it_was(rooms: Rooms) -> None:
    plan = replace(GUARDED, alpha=0.01, planned_units=9000, ship=By.RULE, allocation=Allocation.THOMPSON)
    one = await compared(rooms, plan=plan, hypothesis="it is better", unit=Unit.EPISODE, layer="copy", coverage=0.25)
    assert await rooms.experiments.get(one.id) == one
    assert (one.plan, one.hypothesis, one.unit, one.layer) == (plan, "it is better", Unit.EPISODE, "copy")


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"plan": Plan(primary="no-such")}, "Declare it first"),
    ({"plan": Plan(primary="comment")}, "no rate or mean"),
    ({"plan": replace(GUARDED, guardrails=(Guardrail("no-such", 0.1),))}, "automatic"),
    ({"plan": replace(GUARDED, guardrails=(Guardrail("ttft", -1.0),))}, "margin"),
    ({"plan": replace(GUARDED, guardrails=(Guardrail("ttft", float("inf")),))}, "margin"),
    ({"plan": replace(GUARDED, guardrails=(Guardrail("ttft", 1), Guardrail("ttft", 2)))}, "twice"),
    ({"plan": replace(GUARDED, secondaries=("thumbs",))}, "twice"),
    ({"plan": replace(GUARDED, alpha=0.5)}, "alpha"),
    ({"plan": replace(GUARDED, alpha=float("nan"))}, "alpha"),
    ({"plan": replace(GUARDED, planned_units=1)}, "planned_units"),
    ({"plan": replace(GUARDED, cuped_days=-1)}, "cuped_days"),
    ({"plan": Plan(ship=By.RULE)}, "primary metric"),
    ({"plan": Plan(allocation=Allocation.THOMPSON)}, "primary metric"),
    ({"plan": GUARDED, "metric": "latency"}, "Name one of them"),
    ({"coverage": 0.0}, "A coverage is"),
    ({"coverage": float("nan")}, "A coverage is"),
    ({"coverage": 1.1}, "A coverage is"),
    ({"canary_coverage": 0.3}, "start at the stage experiment"),
    ({"canary_coverage": 0.1, "coverage": 0.05}, "smaller share"),
    ({"stage": Stage.PROMOTED}, "Start at shadow"),
    ({"layer": "Not a name"}, "no name for a layer"),
    ({"layer": "l", "unit": Unit.INFERENCE}, "Leave the layer out"),
    ({"stage": Stage.SHADOW, "shadow_share": 0.0}, "share"),
    ({"stage": Stage.SHADOW, "variants": [*arms(None), Variant("third", 1, None)]}, "one candidate"),
    ({"variants": [Variant("base", 0, None), *arms(None)[1:], Variant("x", 1, None)]}, "control"),
    ({"variants": arms(None), "candidates": only(None)}, "candidates alone"),
    ({"candidates": only(None)}, "have no control"),
]


async def test_a_start_that_makes_no_sense_is_refused_with_a_remedy_and_changes_nothing(rooms: Rooms) -> None:
    await rooms.ready()
    await rooms.aliases.set("acme", "support", arms(None), actor=ME)
    version = await read_version(rooms.db)
    for wrong, remedy in WRONG:
        with pytest.raises(InvalidRequest) as refused:
            await rooms.experiments.start("acme", "support", **{"name": "q", "actor": ME, **wrong})
        assert remedy in refused.value.message, (wrong, refused.value.message)
    assert await read_version(rooms.db) == version


async def test_a_layer_says_what_is_free_and_frees_what_ends(rooms: Rooms) -> None:
    one = await compared(rooms, layer="copy", coverage=0.6)
    for name in ("other", "third"):
        await rooms.aliases.set("acme", name, arms(None), actor=ME)
    with pytest.raises(Conflict) as full:
        await rooms.experiments.start("acme", "other", name="q", layer="copy", coverage=0.5, actor=ME)
    assert full.value.code == "layer_full"
    assert "40 % of its units free" in full.value.message and one.id in full.value.message
    other = await rooms.experiments.start("acme", "other", name="q", layer="copy", coverage=0.3, actor=ME)
    both = await drawn(rooms), await drawn(rooms, "other")
    assert not [user for user in USERS if both[0][user][1] and both[1][user][1]]
    with pytest.raises(Conflict, match="10 % of its units free"):
        await rooms.experiments.widen(other.id, 0.5, actor=ME)
    with pytest.raises(Conflict, match="deals out units of the kind targeting_key"):
        await rooms.experiments.start("acme", "third", name="q", layer="copy", unit=Unit.EPISODE, actor=ME)
    await rooms.experiments.pause(one.id, actor=ME)
    with pytest.raises(Conflict, match="free"):  # what is paused comes back to its place
        await rooms.experiments.widen(other.id, 0.5, actor=ME)
    await rooms.experiments.roll_back(one.id, why="worse", actor=ME)
    wide = await rooms.experiments.widen(other.id, 1.0, actor=ME)
    assert wide.split is not None and wide.split.stretches == ((0.0, 1.0),)
    await rooms.tenants.create("globex", actor=ME)
    await rooms.aliases.set("globex", "support", arms(None), actor=ME)
    theirs = await rooms.experiments.start("globex", "support", name="q", layer="copy", actor=ME)
    assert theirs.split is not None and theirs.split.salt != wide.split.salt, "a layer is a tenant's own"


async def test_of_two_that_want_the_same_room_at_once_one_gets_it(rooms: Rooms) -> None:
    await rooms.ready()
    names = [f"a{number}" for number in range(4)]
    for name in names:
        await rooms.aliases.set("acme", name, arms(None), actor=ME)
    starts = [rooms.experiments.start("acme", name, name="q", layer="l", coverage=0.4, actor=ME) for name in names]
    found = await asyncio.gather(*starts, return_exceptions=True)
    begun = [one for one in found if isinstance(one, Experiment) and one.split]
    assert 1 <= len(begun) <= 2 and all(isinstance(one, Experiment | Conflict) for one in found)
    held = sorted(stretch for one in begun if one.split for stretch in one.split.stretches)
    assert measure(held) == pytest.approx(0.4 * len(begun)) and len({low for low, _ in held}) == len(held)


async def test_two_steps_at_once_are_one_step_and_a_conflict(rooms: Rooms) -> None:
    one = await compared(rooms)
    steps = (
        rooms.experiments.promote(one.id, "tuned", why="better", actor=ME),
        rooms.experiments.roll_back(one.id, why="worse", actor=ME),
    )
    found = await asyncio.gather(*steps, return_exceptions=True)
    assert sum(isinstance(one, Conflict) for one in found) == 1
    [won] = [one for one in found if isinstance(one, Experiment)]
    assert await rooms.experiments.get(one.id) == won


async def test_workers_have_a_step_when_it_returns_and_no_pause_asks_an_engine(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(one), fallback=Fallback.ERROR, actor=ME)
    async with Worker("w", rooms.db, load_seconds=0.1).running() as worker:

        def alias() -> Any:
            return worker.current.snapshot.aliases["acme", "support"]

        begun = await rooms.experiments.start(
            "acme", "support", name="q", candidates=[Variant("new", 1, two)], stage=Stage.SHADOW, actor=ME
        )
        assert worker.resident == {str(one), str(two)} and worker.current.snapshot.serving() == {one}
        await rooms.experiments.advance(begun.id, why="fine", actor=ME)
        assert alias().split is not None and worker.premature == []
        worker.refuse, worker.resident = "out of memory", {str(one)}
        paused = await rooms.experiments.pause(begun.id, actor=ME)
        assert paused.paused and alias().split is None
        await rooms.experiments.roll_back(begun.id, why="it cannot be loaded", actor=ME)
        assert alias().variants == (Variant("tuned", 1.0, one),) and alias().experiment is None


async def test_who_repeats_an_end_waits_as_well_until_every_worker_has_it(rooms: Rooms) -> None:
    one = await compared(rooms)
    rooms = replace(rooms, acknowledge_seconds=0.3)
    await workers.report(rooms.db, WorkerReport("behind", 0, True, None), ttl=60)
    for _ in range(2):
        with pytest.raises(Unavailable) as told:
            await rooms.experiments.roll_back(one.id, why="harm", actor=ME)
        assert told.value.code == "committed_unconfirmed"


async def test_weights_that_are_none_are_refused(rooms: Rooms) -> None:
    one = await compared(rooms)
    for weights in ([1e308, 1e308], [float("nan"), 1], [-1, 1], [0, 1], [1, 0], [1]):
        with pytest.raises(InvalidRequest):
            await rooms.experiments.reweight(one.id, weights, why="so", actor=ME)
    assert await rooms.experiments.get(one.id) == one


async def test_weights_in_the_same_proportion_begin_no_epoch(rooms: Rooms) -> None:
    one = await compared(rooms)
    assert await rooms.experiments.reweight(one.id, [0.3, 0.3], why="so", actor=ME) == one
    assert await rooms.experiments.get(one.id) == one


async def test_a_tester_is_known_by_a_hash_and_gets_the_variant(rooms: Rooms) -> None:
    one = await compared(rooms, stage=Stage.CANARY)
    await rooms.experiments.override(one.id, "ann", "tuned", actor=ME)
    await rooms.experiments.override(one.id, "ann", "tuned", actor=ME)
    found = assign(await read_snapshot(rooms.db), Tenant("acme", allow_pinning=False), "support", "ann")
    assert (found.variant, found.reason, found.experiment) == ("tuned", Reason.TARGETING_MATCH, None)
    told = [row.detail for row in await audit.entries(rooms.db, "acme", 9) if row.action == "experiment.override"]
    assert len(told) == 1 and "ann" not in str(told) and len(told[0]["unit"]) == 32
    left = await rooms.experiments.override(one.id, "ann", None, actor=ME)
    assert left.split is not None and left.split.overrides == {}
    assert assign(await read_snapshot(rooms.db), Tenant("acme"), "support", "ann").reason is not Reason.TARGETING_MATCH
    with pytest.raises(GatewayError):
        await rooms.experiments.override(one.id, "ann", "no-such", actor=ME)


async def test_an_alias_that_mirrors_already_has_no_place_for_a_shadow(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    await rooms.aliases.set("acme", "support", only(None, "base"), actor=ME)
    await rooms.aliases.mirror("acme", "support", Shadow(one, 0.1), actor=ME)
    with pytest.raises(Conflict, match="mirrors requests already"):
        await rooms.experiments.start("acme", "support", name="q", variants=arms(one), stage=Stage.SHADOW, actor=ME)


async def test_a_ratio_may_decide_an_experiment(rooms: Rooms) -> None:
    await rooms.ready()
    await rooms.aliases.set("acme", "support", arms(None), actor=ME)
    await rooms.metrics.declare(Metric("acme", "clicks", MetricKind.COUNT), actor=ME)
    await rooms.metrics.declare(
        Metric("acme", "per-token", MetricKind.RATIO, numerator="clicks", denominator="output_tokens"), actor=ME
    )
    plan = Plan(primary="per-token", guardrails=(Guardrail("clicks", 0.1, relative=True),))
    assert (await rooms.experiments.start("acme", "support", name="q", plan=plan, actor=ME)).plan == plan
