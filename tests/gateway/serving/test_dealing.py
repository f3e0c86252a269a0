"""Routing under an experiment, pure: who takes part, who stays where, and who is in which of a layer's experiments."""

from __future__ import annotations

import gc
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.buckets import Buckets, dealt, grown, rebucket
from gateway.domain import Alias, Assignment, Reason, Shadow, Split, Tenant, Unit, Variant
from gateway.identity import unit_of
from gateway.serving.dealing import Dealing
from gateway.serving.routing import Episodes, assign
from gateway.snapshot import Snapshot
from tests.gateway.serving.house import SECRET, adapter, alias, picture, ref

ACME = Tenant("acme")
USERS = [f"user-{n}" for n in range(1200)]
ARMS = (("base", 1.0, None), ("tuned", 1.0, "acme/support@1"), ("other", 2.0, "acme/support@2"))
WEIGHTS = {"base": 1.0, "tuned": 1.0, "other": 2.0}
EVEN = dealt(WEIGHTS)


def running(
    stretches: tuple[tuple[float, float], ...] = ((0.0, 1.0),),
    *,
    name: str = "support",
    salt: str = "salt",
    layer: str | None = None,
    buckets: Buckets = EVEN,
    unit: Unit = Unit.TARGETING_KEY,
    **more: Any,
) -> Alias:
    """An alias whose experiment deals out these stretches."""
    split = Split(unit, layer or salt, stretches, buckets, more.pop("overrides", {}))
    return alias("acme", name, *ARMS, salt=salt, experiment=f"exp-{name}", split=split, **more)


def drawn(one: Alias, users: list[str] = USERS) -> dict[str, Assignment]:
    snapshot = picture(aliases=[one])
    return {user: assign(snapshot, ACME, one.name, user) for user in users}


def test_outside_of_the_coverage_everybody_has_the_control_and_is_in_no_experiment() -> None:
    found = drawn(running(((0.0, 0.25),)))
    outside = [one for one in found.values() if one.experiment is None]
    assert len(outside) == pytest.approx(0.75 * len(USERS), rel=0.1)
    assert {(one.variant, one.ref, one.reason, one.propensity) for one in outside} == {("base", None, "split", 1.0)}
    inside = {(one.variant, one.experiment, one.reason, one.propensity) for one in found.values() if one.experiment}
    assert inside == {(name, "exp-support", "split", weight / 4) for name, weight in WEIGHTS.items()}


@settings(max_examples=6, deadline=None)
@given(st.floats(0.01, 0.99), st.booleans())
def test_the_share_that_takes_part_is_as_asked_and_says_nothing_of_the_arm(coverage: float, layered: bool) -> None:
    found = drawn(running(((0.0, coverage),), layer="of-a-layer" if layered else None))
    inside = [one for one in found.values() if one.experiment]
    assert near(len(inside), len(USERS), coverage)
    for name, weight in WEIGHTS.items():
        assert near(sum(one.variant == name for one in inside), len(inside), weight / 4)


def near(count: int, total: int, share: float) -> bool:
    """Within five standard deviations."""
    return abs(count - total * share) <= 5 * math.sqrt(total * share * (1 - share)) + 1


@settings(max_examples=6, deadline=None)
@given(st.floats(0.01, 0.5), st.floats(0.5, 1), st.booleans())
def test_who_takes_part_stays_with_the_arm_when_more_do(small: float, large: float, layered: bool) -> None:
    layer = "of-a-layer" if layered else None
    canary, wide = (drawn(running(((0.0, share),), layer=layer)) for share in (small, large))
    for user, one in canary.items():
        if one.experiment:
            assert wide[user] == one
        else:
            assert one.variant == "base"


@settings(max_examples=6, deadline=None)
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(WEIGHTS, st.floats(0.1, 9))), min_size=1, max_size=4))
def test_new_weights_move_only_whom_they_must(later: list[dict[str, float]]) -> None:
    buckets, before = dealt(WEIGHTS), drawn(running())
    weights = WEIGHTS
    for new in later:
        buckets = rebucket(buckets, new)
        after = drawn(running(buckets=buckets))
        apart = sum(abs(new[n] / sum(new.values()) - weights[n] / sum(weights.values())) for n in WEIGHTS) / 2
        assert near(sum(before[user].variant != after[user].variant for user in USERS), len(USERS), min(apart, 1.0))
        for one in after.values():
            assert one.propensity == pytest.approx(new[one.variant] / sum(new.values()))
        before, weights = after, new


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(0.05, 0.6), min_size=2, max_size=4))
def test_no_unit_is_in_two_experiments_of_a_layer(coverages: list[float]) -> None:
    taken: list[tuple[float, float]] = []
    aliases = []
    for number, coverage in enumerate(coverages):
        stretches = grown((), coverage, taken)
        if stretches is not None:
            taken += stretches
            aliases.append(running(stretches, name=f"a{number}", salt=f"salt-{number}", layer="the layer's"))
    snapshot = picture(aliases=aliases)
    inside = {one.name: 0 for one in aliases}
    for user in USERS:
        mine = [one.name for one in aliases if assign(snapshot, ACME, one.name, user).experiment]
        assert len(mine) <= 1
        for name in mine:
            inside[name] += 1
    for one in aliases:
        assert one.split and near(inside[one.name], len(USERS), sum(high - low for low, high in one.split.stretches))


def test_experiments_without_a_layer_are_independent() -> None:
    one, other = (
        {user for user, found in drawn(running(((0.0, 0.5),), salt=salt)).items() if found.experiment}
        for salt in ("one", "other")
    )
    assert near(len(one & other), len(USERS), 0.25)


@pytest.mark.parametrize(
    ("unit", "key"),
    [(Unit.TARGETING_KEY, "user"), (Unit.EPISODE, "episode"), (Unit.INFERENCE, "inference")],
)
def test_what_is_dealt_out_is_what_was_chosen(unit: Unit, key: str) -> None:
    """Whoever shares the unit shares the arm, whatever else differs; and different units get different arms."""
    snapshot = picture(aliases=[running(unit=unit)])

    def arm(**named: str) -> str:
        return assign(snapshot, ACME, "support", named["user"], named["episode"], named["inference"]).variant

    arms = set()
    for number in range(40):
        same = {key: f"the same {number}"}
        given = [{"user": f"u{n}", "episode": f"e{n}", "inference": f"i{n}", **same} for n in range(4)]
        found = {arm(**named) for named in given}
        assert len(found) == 1
        arms |= found
    assert arms == set(WEIGHTS)


def test_an_episode_that_has_no_name_is_its_inference_and_what_is_not_known_its_user() -> None:
    episodes, inferences = (picture(aliases=[running(unit=unit)]) for unit in (Unit.EPISODE, Unit.INFERENCE))
    for number in range(50):
        alone = assign(episodes, ACME, "support", "u", None, f"i{number}")
        assert alone == assign(inferences, ACME, "support", "u", f"e{number}", f"i{number}")
        user = assign(picture(aliases=[running()]), ACME, "support", f"u{number}")
        assert assign(inferences, ACME, "support", f"u{number}").variant == user.variant


def test_a_tester_gets_the_variant_outside_of_the_experiment_even_where_pinning_is_forbidden() -> None:
    strict = Tenant("acme", allow_pinning=False)
    testers = {unit_of(SECRET, "acme", user): name for user, name in (("ann", "tuned"), ("bob", "base"))}
    for unit in Unit:
        snapshot = picture(aliases=[running(((0.0, 0.001),), overrides=testers, unit=unit)])
        found = assign(snapshot, strict, "support", "ann", "talk", "i")
        assert (found.variant, found.ref, found.reason) == ("tuned", ref("acme/support@1"), Reason.TARGETING_MATCH)
        assert (found.experiment, found.propensity) == (None, 1.0)
        assert assign(snapshot, strict, "support", "bob", "talk", "i").reason is Reason.TARGETING_MATCH
        assert assign(snapshot, strict, "support", "cat", "talk", "i").reason is not Reason.TARGETING_MATCH
    theirs = picture(aliases=[replace(running(overrides=testers), tenant="zeta")])
    assert assign(theirs, Tenant("zeta"), "support", "ann").reason is Reason.SPLIT, "a unit is a tenant's own"


def test_what_was_worked_out_for_pictures_of_before_is_forgotten() -> None:
    held = []
    for revisions in (range(1), range(1, 20)):
        for revision in revisions:
            assert drawn(running(revision=revision), USERS[:1])["user-0"].revision == revision
        gc.collect()
        held.append(sum(type(one) is Dealing for one in gc.get_objects()))
    assert held[1] == held[0]


def test_while_it_is_paused_or_a_shadow_everybody_has_the_control() -> None:
    shadow = Shadow(ref("acme/support@1"), 0.5)
    for more in ({}, {"shadow": shadow}):
        found = drawn(alias("acme", "support", *ARMS, experiment="exp-1", split=None, **more), USERS[:200])
        assert set(found.values()) == {Assignment("support", 1, "base", None, Reason.STATIC, 1.0)}


def test_a_resumed_experiment_has_everybody_back_where_they_were() -> None:
    one = running(((0.0, 0.5),))
    before = drawn(one)
    assert drawn(replace(one, split=None)) != before
    again = drawn(replace(one, revision=7))
    assert {user: replace(found, revision=1) for user, found in again.items()} == before


def test_all_weight_on_one_arm_is_no_draw() -> None:
    found = drawn(running(buckets=dealt({"tuned": 1.0})), USERS[:50])
    assert {(one.variant, one.reason, one.propensity, one.experiment) for one in found.values()} == {
        ("tuned", Reason.STATIC, 1.0, "exp-support")
    }


DRAW = """
import pickle, sys
from gateway.domain import Tenant
from gateway.serving.routing import assign
snapshot, users = pickle.load(sys.stdin.buffer)
found = [assign(snapshot, Tenant("acme"), "support", user) for user in users]
sys.stdout.buffer.write(pickle.dumps(found))
"""


def test_every_worker_and_every_start_of_one_draws_the_same() -> None:
    one, users = running(((0.1, 0.4), (0.7, 0.9)), layer="of-a-layer"), USERS[:300]
    given = pickle.dumps((picture(aliases=[one]), users))
    done = subprocess.run([sys.executable, "-c", DRAW], input=given, capture_output=True, check=True)
    assert pickle.loads(done.stdout) == list(drawn(one, users).values())


def keeping(seconds: float = 100) -> Episodes:
    return Episodes(seconds=seconds, clock=lambda: 0.0)


def asked(episodes: Episodes, snapshot: Snapshot, user: str, talk: str = "talk") -> Assignment:
    return episodes.keep(snapshot, ACME, talk, assign(snapshot, ACME, "support", user, talk, "i"))


def by_arm(one: Alias, variant: str) -> str:
    """Some user whom the experiment gives this variant."""
    return next(user for user, found in drawn(one).items() if found.variant == variant and found.experiment)


def test_a_candidates_conversation_ends_with_its_experiment_and_with_a_pause() -> None:
    one = running()
    ends = (
        replace(one, split=None, revision=2),
        replace(one, split=None, experiment=None, variants=one.variants[:1], revision=2),
        replace(one, experiment="exp-2", salt="another", split=replace(one.split, buckets=dealt({"base": 1.0}))),
    )
    for end in ends:
        for arm in WEIGHTS:
            episodes, user = keeping(), by_arm(one, arm)
            assert asked(episodes, picture(aliases=[one]), user).variant == arm
            after = asked(episodes, picture(aliases=[end]), user)
            assert (after.variant, after.experiment) == ("base", "exp-2" if end is ends[2] and arm != "base" else None)


def test_a_conversation_that_began_outside_stays_outside_whatever_its_arm() -> None:
    """Else the control would gain its users at once when more take part, and the candidates theirs an hour later."""
    before, after = running(((0.0, 0.001),)), running()
    for arm in WEIGHTS:
        user = by_arm(after, arm)
        if drawn(before, [user])[user].experiment:
            continue
        episodes = keeping()
        assert asked(episodes, picture(aliases=[before]), user).experiment is None
        still = asked(episodes, picture(aliases=[after]), user)
        assert (still.variant, still.experiment) == ("base", None)
        assert asked(episodes, picture(aliases=[after]), user, "another talk").experiment == "exp-support"


def test_a_conversation_stays_with_its_arm_over_new_weights_and_is_counted_there() -> None:
    one = running()
    other = running(buckets=dealt({"other": 1.0, "base": 0.001}), revision=2)
    episodes, user = keeping(), by_arm(one, "tuned")
    began = asked(episodes, picture(aliases=[one]), user)
    stayed = asked(episodes, picture(aliases=[other]), user)
    assert stayed == replace(began, reason=Reason.CACHED)


def test_where_inferences_are_dealt_out_a_conversation_holds_none_of_them() -> None:
    snapshot, episodes = picture(aliases=[running(unit=Unit.INFERENCE)]), keeping()
    arms = {
        episodes.keep(snapshot, ACME, "talk", assign(snapshot, ACME, "support", "ann", "talk", f"i{n}")).variant
        for n in range(60)
    }
    assert arms == set(WEIGHTS) and len(episodes) == 0


def test_what_cannot_be_served_is_left_by_a_conversation_under_an_experiment_too() -> None:
    one = running()
    episodes, user = keeping(), by_arm(one, "tuned")
    asked(episodes, picture(aliases=[one]), user)
    gone = picture(aliases=[running(buckets=dealt({"base": 1.0}))], adapters=[adapter("acme/support@1", retired=True)])
    assert asked(episodes, gone, user).variant == "base"


def test_a_version_of_a_variant_that_is_named_is_still_served() -> None:
    snapshot = picture(aliases=[running(((0.0, 0.1),))])
    found = assign(snapshot, ACME, "support:tuned", "u")
    assert (found.variant, found.experiment, found.reason) == ("tuned", None, Reason.TARGETING_MATCH)
    assert Variant("tuned", 1.0, ref("acme/support@1")) in snapshot.aliases["acme", "support"].variants
