"""Routing, pure: shares match weights, users stay, few move when weights do, and nobody gets another tenant's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain import Fallback, Reason, Tenant, Variant
from gateway.errors import ModelNotFound, Unavailable
from gateway.serving.routing import Episodes, arms, assign, instead_of, names, servable
from gateway.snapshot import Snapshot
from tests.gateway.serving.house import adapter, alias, picture, ref

ACME, ZETA = Tenant("acme"), Tenant("zeta")
USERS = [f"user-{n}" for n in range(4000)]

weights = st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=6).filter(lambda w: sum(w) > 0.01)


def split(weights: list[float], salt: str = "salt") -> Snapshot:
    return picture(
        aliases=[alias("acme", "a", *((f"v{n}", weight, None) for n, weight in enumerate(weights)), salt=salt)]
    )


def drawn(snapshot: Snapshot) -> list[str]:
    return [assign(snapshot, ACME, "a", user).variant for user in USERS]


@settings(max_examples=20, deadline=None)
@given(weights, st.text(min_size=1, max_size=8))
def test_shares_match_the_weights(weights: list[float], salt: str) -> None:
    total, names = sum(weights), drawn(split(weights, salt))
    for number, weight in enumerate(weights):
        expected = weight / total
        spread = math.sqrt(len(USERS) * expected * (1 - expected))
        assert abs(names.count(f"v{number}") - len(USERS) * expected) <= 5 * spread + 1


@given(weights)
def test_a_variant_without_weight_is_never_drawn_and_propensities_are_its_share(weights: list[float]) -> None:
    one = next(iter(split(weights).aliases.values()))
    compiled = arms(one)
    assert [a.variant for _, a in compiled] == [f"v{n}" for n, weight in enumerate(weights) if weight > 0]
    assert [a.propensity for _, a in compiled] == [weight / sum(weights) for weight in weights if weight > 0]
    ends = [end for end, _ in compiled]
    assert ends == sorted(ends) and ends[-1] == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), st.integers(0, 100))
def test_moving_weight_between_two_arms_moves_only_that_many_users(before: int, after: int) -> None:
    old_names, new_names = (drawn(split([float(percent), float(100 - percent)])) for percent in (before, after))
    moved = {(old, new) for old, new in zip(old_names, new_names, strict=True) if old != new}
    # Who moves, moves towards the arm that grew: nobody is swapped to and fro.
    assert moved <= ({("v1", "v0")} if after > before else {("v0", "v1")})


@given(st.text(max_size=40))
def test_a_user_stays_as_long_as_the_salt_does(user: str) -> None:
    snapshot = picture()
    first = assign(snapshot, ACME, "support", user)
    assert assign(snapshot, ACME, "support", user) == first
    assert (first.reason, first.propensity) == (Reason.SPLIT, 0.5)


@settings(max_examples=150)
@given(
    st.text(max_size=30)
    | st.from_regex(r"(acme|zeta)/(support|other)@[1-3]|[a-z]{1,7}[:@][a-z0-9]{1,6}", fullmatch=True)
)
def test_no_name_leads_to_another_tenants_version(model: str) -> None:
    snapshot = picture()
    for tenant in (ACME, ZETA):
        try:
            got = assign(snapshot, tenant, model, "u")
        except ModelNotFound as error:
            assert model in error.message
        else:
            assert got.ref is None or got.ref.tenant == tenant.name


def test_foreign_unknown_and_retired_names_are_the_same_error() -> None:
    snapshot = picture(adapters=[adapter("acme/support@1"), adapter("acme/support@2", retired=True)])
    told = set()
    for model in ("zeta/support@1", "acme/support@3", "support@2", "acme/support@2", "none@1", "none"):
        with pytest.raises(ModelNotFound) as error:
            assign(snapshot, ACME, model, "u")
        told.add(error.value.body().replace(model.encode(), b"NAME"))
    assert len(told) == 1


def test_an_alias_without_traffic_says_so() -> None:
    snapshot = picture(aliases=[alias("acme", "off", ("a", 0, None))])
    with pytest.raises(Unavailable):
        assign(snapshot, ACME, "off", "u")


def test_pinning_takes_no_part_in_an_experiment() -> None:
    running = alias("acme", "support", ("base", 1, None), ("tuned", 1, "acme/support@1"), experiment="exp-1")
    snapshot = picture(aliases=[running])
    assert assign(snapshot, ACME, "support", "u").experiment == "exp-1"
    assert assign(snapshot, ACME, "support:tuned", "u").experiment is None


def test_fallbacks_follow_the_policy_and_never_lead_to_the_same_version() -> None:
    before = (Variant("tuned", 1, ref("acme/support@1")), Variant("other", 9, None))
    for policy, expected in ((Fallback.BASE, None), (Fallback.PREVIOUS, ref("acme/support@1"))):
        moved = alias("acme", "support", ("tuned", 1, "acme/support@2"), previous=before, fallback=policy)
        snapshot = picture(aliases=[moved])
        assert instead_of(snapshot, ACME, assign(snapshot, ACME, "support", "u")) == expected
    strict = picture(aliases=[replace(moved, fallback=Fallback.ERROR)])
    alone = picture(aliases=[replace(moved, previous=None)])
    same = picture(aliases=[replace(moved, previous=moved.variants)])
    pinned = assign(snapshot, ACME, "support:tuned", "u")
    for one, assignment in [(s, assign(s, ACME, "support", "u")) for s in (strict, alone, same)] + [(snapshot, pinned)]:
        with pytest.raises(LookupError):
            instead_of(one, ACME, assignment)


def test_what_is_listed_can_be_asked_for() -> None:
    snapshot = picture(adapters=[adapter("acme/support@1"), adapter("acme/support@2", retired=True)])
    listed = list(names(snapshot, ACME))
    assert "support@2" not in listed and len(listed) == 4
    for name in listed:
        assert assign(snapshot, ACME, name, "u")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_episode_stays_for_a_bounded_time_and_only_on_what_can_be_served() -> None:
    clock = Clock()
    episodes = Episodes(seconds=100, clock=clock)
    old = picture(aliases=[alias("acme", "a", ("x", 1, "acme/support@1"), experiment="e1")])
    new = picture(aliases=[alias("acme", "a", ("y", 1, "acme/support@2"), experiment="e2", revision=2)])
    began = assign(old, ACME, "a", "u")
    assert episodes.keep(old, ACME, "talk", began) == began
    stayed = episodes.keep(new, ACME, "talk", assign(new, ACME, "a", "u"))
    assert (stayed.ref, stayed.variant, stayed.reason) == (began.ref, "x", Reason.CACHED)
    assert stayed.experiment is None  # e1 is over, and e2 did not draw this
    assert episodes.keep(new, ZETA, "talk", assign(new, ACME, "a", "u")).variant == "y"
    gone = replace(new, adapters={ref("acme/support@1"): adapter("acme/support@1", retired=True)})
    assert not servable(gone, began.ref)
    assert episodes.keep(gone, ACME, "talk", assign(new, ACME, "a", "u")).variant == "y"
    episodes.keep(old, ACME, "talk-2", began)
    clock.now = 101
    assert episodes.keep(new, ACME, "talk-2", assign(new, ACME, "a", "u")).variant == "y"


@given(st.lists(st.text(max_size=3), max_size=200))
def test_episodes_never_take_more_than_their_memory(conversations: list[str]) -> None:
    episodes = Episodes(capacity=10)
    snapshot = picture()
    for name in conversations:
        episodes.keep(snapshot, ACME, name, assign(snapshot, ACME, "support", name))
    assert len(episodes) <= 10
