"""Which requests are mirrored, and that reading them for it leaves them as they were."""

from __future__ import annotations

import math
import random

import msgspec
import pytest

from gateway.domain import Alias, Shadow
from gateway.serving.endpoints import EMBEDDINGS
from gateway.serving.mirror import chosen, comparable, unary
from gateway.serving.request import CHAT_COMPLETIONS, COMPLETIONS, parse
from gateway.serving.routing import share
from tests.gateway.serving.house import alias
from tests.gateway.serving.mirrored import ASKED, ONE, TWO, mirrored, over


def ids(number: int, seed: int = 7) -> list[str]:
    chance = random.Random(seed)
    return [f"{chance.getrandbits(176):044x}" for _ in range(number)]


def pointer(salt: str = "pepper") -> Alias:
    return alias("acme", "support", ("a", 1, None), ("b", 1, str(ONE)), salt=salt)


def near(found: int, number: int, part: float) -> bool:
    """Within 4.5 standard deviations of a binomial."""
    return abs(found - number * part) <= 4.5 * math.sqrt(number * part * (1 - part))


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 1.0])
def test_as_many_are_mirrored_as_the_share_says(part: float) -> None:
    drawn = ids(20_000)
    assert near(sum(chosen(pointer(), Shadow(TWO, part), one) for one in drawn), len(drawn), part)


def test_the_mirrored_share_says_nothing_about_the_variant_even_of_requests_without_a_user() -> None:
    first_arm = [one for one in ids(40_000) if share("pepper", "acme", one) < 0.5]
    assert near(sum(chosen(pointer(), Shadow(TWO, 0.2), one) for one in first_arm), len(first_arm), 0.2)


def test_a_larger_share_mirrors_more_requests_and_the_same_ones_and_another_alias_others() -> None:
    drawn = ids(5_000)
    few, many = ({one for one in drawn if chosen(pointer(), Shadow(TWO, part), one)} for part in (0.1, 0.4))
    other = {one for one in drawn if chosen(pointer("salt"), Shadow(TWO, 0.1), one)}
    assert few < many
    assert near(len(few & other), len(few), 0.1)


def test_only_what_the_alias_answered_well_with_another_version_is_comparable() -> None:
    snapshot = mirrored()
    assert comparable(over(snapshot), TWO)
    assert comparable(over(snapshot), None)
    assert comparable(over(snapshot, {"model": "tuned", "prompt": "hi"}, COMPLETIONS), TWO)
    assert not comparable(over(snapshot), ONE)  # the candidate itself answered
    assert not comparable(over(snapshot, ASKED | {"model": "tuned:tuned"}), TWO)  # the client named what it wanted
    assert not comparable(over(snapshot, outcome="disconnected"), TWO)
    assert not comparable(over(snapshot, outcome="engine_error", status=502), TWO)
    assert not comparable(over(snapshot, {"model": "tuned", "input": "hi"}, EMBEDDINGS), TWO)


def test_the_request_itself_stays_as_it_was() -> None:
    request = parse(
        msgspec.json.encode(ASKED | {"stream": True, "stream_options": {"include_usage": True}}), CHAT_COMPLETIONS
    )
    before = dict(request.fields)
    unary(request).body("candidate", "salt")
    assert request.fields == before and request.stream
