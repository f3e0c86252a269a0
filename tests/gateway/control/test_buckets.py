"""Shares come out as the weights say, as little moves as can, and no place of a layer is given twice."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.buckets import GRAIN, Buckets, dealt, free, grown, measure, rebucket, shares

NAMES = "abcd"
weights = st.dictionaries(
    st.sampled_from(NAMES), st.floats(0, 1000, allow_nan=False) | st.integers(0, 3).map(float), min_size=1, max_size=4
).filter(lambda found: math.fsum(found.values()) > 0.01)
points = st.floats(0, 1, exclude_max=True)


def owner(buckets: Buckets, at: float) -> str:
    return next(name for end, name in buckets if at < end)


def wanted(given: dict[str, float]) -> dict[str, float]:
    total = math.fsum(given.values())
    return {name: weight / total for name, weight in given.items()}


def check_shares(buckets: Buckets, given: dict[str, float]) -> None:
    """They are the weights', to the grain, and the ends rise to 1 exactly."""
    assert [end for end, _ in buckets] == sorted({end for end, _ in buckets}) and buckets[-1][0] == 1.0
    found = shares(buckets)
    for name, share in wanted(given).items():
        assert abs(found.get(name, 0.0) - share) <= len(NAMES) * GRAIN
    assert set(found) <= set(given)


@settings(max_examples=40)
@given(weights)
def test_what_is_dealt_has_the_weights_shares(given: dict[str, float]) -> None:
    check_shares(dealt(given), given)


@settings(max_examples=50)
@given(weights, st.lists(weights, max_size=6), st.lists(points, min_size=20, max_size=20))
def test_any_sequence_of_new_weights_moves_as_little_as_can_be(
    first: dict[str, float], later: list[dict[str, float]], places: list[float]
) -> None:
    buckets = dealt(first)
    for new in later:
        old, buckets = buckets, rebucket(buckets, new)
        check_shares(buckets, new)
        before, after = shares(old), shares(buckets)
        grew = {name for name in after if after[name] > before.get(name, 0.0)}
        # Total variation distance: that much must move, and no more does.
        apart = math.fsum(abs(after.get(name, 0.0) - before.get(name, 0.0)) for name in NAMES) / 2
        assert moved_mass(old, buckets) == apart
        for at in places:
            was, now = owner(old, at), owner(buckets, at)
            assert was == now or (now in grew and was not in grew), "nobody moves between two that grow, or shrink"


def moved_mass(old: Buckets, new: Buckets) -> float:
    """How much of [0, 1) has another name. Exact: all ends are on the grid."""
    ends = sorted({end for end, _ in (*old, *new)})
    begins = [0.0, *ends[:-1]]
    return math.fsum(
        end - begin for begin, end in zip(begins, ends, strict=True) if owner(old, begin) != owner(new, begin)
    )


@settings(max_examples=40)
@given(weights)
def test_the_same_weights_again_move_nobody(given: dict[str, float]) -> None:
    assert rebucket(dealt(given), given) == dealt(given)


def test_users_go_and_come_back_by_the_same_way() -> None:
    half = dealt({"a": 1, "b": 1})
    third = rebucket(half, {"a": 1, "b": 2})
    assert shares(third) == pytest.approx({"a": 1 / 3, "b": 2 / 3})
    assert moved_mass(half, rebucket(third, {"a": 1, "b": 1})) == 0, "between two neighbours there is one border"


coverages = st.floats(0.001, 1)


class Layer:
    """The model: who holds what of one layer."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[tuple[float, float], ...]] = {}

    def grow(self, who: int, coverage: float) -> bool:
        others = [one for name, held in self.held.items() if name != who for one in held]
        own = self.held.get(who, ())
        found = grown(own, max(coverage, measure(own)), others)
        if found is None:
            return False
        assert all(any(low >= a and high <= b for a, b in found) for low, high in own), "what it has it keeps"
        assert abs(measure(found) - max(coverage, measure(own))) <= GRAIN
        self.held[who] = found
        return True


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), coverages | st.none()), max_size=25), st.lists(points, max_size=8))
def test_no_place_of_a_layer_is_held_twice_and_none_is_lost(
    story: list[tuple[int, float | None]], places: list[float]
) -> None:
    layer = Layer()
    for who, coverage in story:
        if coverage is None:
            layer.held.pop(who, None)
            continue
        taken = [one for held in layer.held.values() for one in held]
        left = measure(free(taken))
        more = coverage - measure(layer.held.get(who, ()))
        # It is refused if, and only if, there is too little; the grain is what rounding may decide.
        done = layer.grow(who, coverage)
        assert done == (more <= left) or abs(more - left) <= GRAIN
        for at in places:
            assert sum(low <= at < high for held in layer.held.values() for low, high in held) <= 1
    stretches = [one for held in layer.held.values() for one in held]
    assert measure(stretches) + measure(free(stretches)) == 1.0


def test_what_was_freed_is_filled_again_and_joined() -> None:
    layer = Layer()
    for who in range(4):
        assert layer.grow(who, 0.25)
    assert not layer.grow(5, 0.001)
    del layer.held[1], layer.held[2]
    assert layer.grow(5, 0.4)
    assert layer.grow(0, 0.35)
    assert layer.held == {
        0: ((0.0, 0.25), (pytest.approx(0.65), 0.75)),
        3: ((0.75, 1.0),),
        5: ((0.25, pytest.approx(0.65)),),
    }
