"""OpenFeature's own client and provider: what they are told is what a request then gets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagEvaluationDetails, Reason

from gateway.domain import Alias, Scope, Split, Unit
from gateway.identity import unit_of
from gateway.snapshot import Snapshot
from tests.gateway.edges.whole import Whole
from tests.gateway.serving.house import ACME, HELLO, SECRET, ZETA, alias, key, picture

SUPPORT = alias("acme", "support", ("base", 1, None), ("tuned", 1, "acme/support@1"), experiment="exp-1")
HALVES = Split(Unit.TARGETING_KEY, SUPPORT.salt, ((0.0, 1.0),), ((0.5, "base"), (1.0, "tuned")))
NARROW = replace(HALVES, stretches=((0.0, 0.2),))
WIDER = replace(HALVES, stretches=((0.0, 0.2), (0.45, 0.9)))
MOVED = replace(HALVES, buckets=((0.5, "base"), (0.8, "tuned"), (1.0, "base")))
TESTERS = replace(NARROW, overrides={unit_of(SECRET, "acme", f"user-{n}"): "tuned" for n in range(0, 300, 7)})
LAYERED = replace(WIDER, salt="a layer's")
SPLITS = [HALVES, NARROW, WIDER, MOVED, TESTERS, LAYERED]


def dealt(split: Split | None, **changes: Any) -> Snapshot:
    keys = {ACME: key("acme"), ZETA: key("zeta"), "judge": key("acme", Scope.FEEDBACK)}
    other = alias("zeta", "theirs", ("base", 1, None))
    return picture(aliases=[replace(SUPPORT, split=split, **changes), fixed(), other], keys=keys)


def fixed() -> Alias:
    return alias("acme", "fixed", ("tuned", 1, "acme/support@1"), revision=4)


def client(whole: Whole, secret: str = ACME, *, header: str = "Authorization") -> OpenFeatureClient:
    shown = {header: f"Bearer {secret}" if header == "Authorization" else secret}
    api.set_provider_and_wait(OFREPProvider(whole.url, headers_factory=lambda: shown), domain=f"{secret}-{header}")
    return api.get_client(domain=f"{secret}-{header}")


async def told(one: OpenFeatureClient, flag: str, user: str, **more: Any) -> FlagEvaluationDetails[str]:
    return await asyncio.to_thread(one.get_string_details, flag, "none", EvaluationContext(user, more))


async def same_for_all(whole: Whole, users: Iterable[str]) -> dict[str, str]:
    """The variant of each user, which its requests get, too."""
    asking, drawn = client(whole), {}
    for user in users:
        evaluated = await told(asking, "support", user)
        served = await whole.house.post({"model": "support", "messages": HELLO, "max_tokens": 1}, x_targeting_key=user)
        assert served.headers["x-variant"] == evaluated.value == evaluated.variant, user
        assert served.headers["x-adapter"] == evaluated.flag_metadata["adapter"]
        assert served.headers.get("x-experiment") == evaluated.flag_metadata.get("experiment")
        assert whole.house.records.rows[-1].reason == str(evaluated.reason).lower()
        drawn[user] = evaluated.value
    return drawn


async def test_an_evaluation_is_what_the_users_requests_get(whole: Whole) -> None:
    for split in (NARROW, MOVED):
        whole.show(dealt(split))
        assert set((await same_for_all(whole, (f"user-{n}" for n in range(24)))).values()) == {"base", "tuned"}


@pytest.mark.long
async def test_it_is_over_coverage_layers_testers_and_new_weights(whole: Whole) -> None:
    seen = {}
    for split in (None, *SPLITS):
        whole.show(dealt(split))
        seen[split and split.buckets, split and split.stretches] = await same_for_all(
            whole, (f"user-{n}" for n in range(200))
        )
    assert set(seen[None, None].values()) == {"base"}  # paused: the control for everybody
    narrow, wide = (seen[HALVES.buckets, one.stretches] for one in (NARROW, WIDER))
    assert list(narrow.values()).count("tuned") < list(wide.values()).count("tuned")


async def test_it_says_why_and_what_serves_and_which_experiment_it_is(whole: Whole) -> None:
    whole.show(dealt(HALVES, revision=7))
    asking = client(whole)
    drawn = await told(asking, "support", "ann")
    assert drawn.reason == Reason.SPLIT and drawn.flag_metadata["experiment"] == "exp-1"
    assert drawn.flag_metadata["alias_revision"] == 7
    static = await told(asking, "fixed", "ann")
    assert (static.value, static.reason) == ("tuned", Reason.STATIC)
    assert static.flag_metadata == {"adapter": "acme/support@1", "alias_revision": 4}
    whole.show(dealt(replace(HALVES, overrides={unit_of(SECRET, "acme", "ann"): "tuned"})))
    tester = await told(client(whole, header="X-API-Key"), "support", "ann")
    assert (tester.value, tester.reason) == ("tuned", Reason.TARGETING_MATCH)
    assert "experiment" not in tester.flag_metadata  # a tester is no part of it


async def test_an_evaluation_leaves_no_trace(whole: Whole) -> None:
    whole.show(dealt(HALVES))
    await told(client(whole), "support", "ann")
    assert whole.house.records.rows == []


async def test_of_episodes_the_context_names_one_and_of_requests_nothing_is_known(whole: Whole) -> None:
    whole.show(dealt(replace(HALVES, unit=Unit.EPISODE)))
    asking = client(whole)
    for number in range(12):
        named = await told(asking, "support", "ann", episode_id=f"conversation-{number}")
        body = {"model": "support", "messages": HELLO}
        served = await whole.house.post(body, x_targeting_key="ann", x_episode_id=f"conversation-{number}")
        assert served.headers["x-variant"] == named.value
    unnamed = await told(asking, "support", "ann")
    assert (unnamed.value, unnamed.error_code) == ("none", ErrorCode.INVALID_CONTEXT)
    whole.show(dealt(replace(HALVES, unit=Unit.INFERENCE)))
    drawn = await told(asking, "support", "ann", episode_id="conversation-1")
    assert drawn.error_code == ErrorCode.INVALID_CONTEXT and "x-variant" in str(drawn.error_message)


async def test_what_is_wrong_is_told_in_openfeatures_words(whole: Whole) -> None:
    whole.show(dealt(HALVES))
    asking = client(whole)
    for flag in ("nobody", "theirs", "base", "support:tuned", "support@1"):
        unknown = await told(asking, flag, "ann")
        assert (unknown.value, unknown.error_code) == ("none", ErrorCode.FLAG_NOT_FOUND)
    assert (await told(asking, "support", "")).error_code == ErrorCode.TARGETING_KEY_MISSING
    assert (await told(asking, "support", "x" * 513)).error_code == ErrorCode.INVALID_CONTEXT
    assert (await asyncio.to_thread(asking.get_boolean_details, "fixed", True, EvaluationContext("a"))).value is True
    for secret, words in (("wrong", "unauthorized"), ("judge", "forbidden")):
        refused = await told(client(whole, secret), "support", "ann")
        assert (refused.value, refused.error_code, refused.error_message) == ("none", ErrorCode.GENERAL, words)


@pytest.mark.long
async def test_any_body_that_is_none_is_a_400_in_their_shape(whole: Whole) -> None:
    whole.show(dealt(HALVES))
    bodies = (b"", b"{", b"[]", b'{"context": 3}', b'{"context": {"targetingKey": 3}}', b'{"a":1,"a":2}')
    for path in ("/ofrep/v1/evaluate/flags/support", "/ofrep/v1/evaluate/flags"):
        for body in bodies:
            reply = await whole.house.post(body, path=path)
            assert reply.status_code == 400 and reply.json().get("key") == ("support" if "support" in path else None)
            assert reply.json()["errorCode"] in ("PARSE_ERROR", "INVALID_CONTEXT") and reply.json()["errorDetails"]
        assert (await whole.house.post(b"x" * 70_000, path=path)).status_code == 413
        assert (await whole.house.post(b"", path=path, key="wrong")).json()["errorCode"] == "GENERAL"


async def test_all_flags_come_at_once_and_only_when_they_changed(whole: Whole) -> None:
    whole.show(dealt(HALVES))

    async def ask(user: str = "ann", **headers: str) -> httpx.Response:
        body = {"context": {"targetingKey": user}}
        return await whole.house.post(body, path="/ofrep/v1/evaluate/flags", **headers)

    first = await ask()
    assert [flag["key"] for flag in first.json()["flags"]] == ["fixed", "support"]
    one = await whole.house.post({"context": {"targetingKey": "ann"}}, path="/ofrep/v1/evaluate/flags/support")
    assert first.json()["flags"][1] == one.json()
    again = await ask(if_none_match=f'"other", W/{first.headers["etag"]}')
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    whole.show(dealt(HALVES, revision=2))
    assert (await ask(if_none_match=first.headers["etag"])).status_code == 200
    whole.show(dealt(replace(HALVES, unit=Unit.INFERENCE)))
    failed = (await ask()).json()["flags"][1]
    assert (failed["key"], failed["errorCode"]) == ("support", "INVALID_CONTEXT")
    assert (await ask("")).json()["errorCode"] == "TARGETING_KEY_MISSING"


async def test_while_the_database_is_away_known_keys_go_on(whole: Whole) -> None:
    whole.show(dealt(HALVES))
    whole.here.current.stale = True
    assert (await told(client(whole), "support", "ann")).error_code is None
    body = {"context": {"targetingKey": "ann"}}
    reply = await whole.house.post(body, path="/ofrep/v1/evaluate/flags/support", key="made just now")
    assert (reply.status_code, reply.json()["errorCode"]) == (503, "GENERAL") and reply.headers["retry-after"]
