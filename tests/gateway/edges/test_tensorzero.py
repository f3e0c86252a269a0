"""TensorZero's client from an inference to its feedback, on both planes, and what becomes of both in the database."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorzero import AsyncTensorZeroGateway, TensorZeroError

from gateway import identity
from tests.gateway.api.installation import Installation
from tests.gateway.edges.whole import Whole

INPUT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
SECRET = b"s" * 32


@pytest.fixture
async def client(whole: Whole) -> AsyncIterator[Any]:
    """Of a tenant with an alias of the base model, and two metrics."""
    here = whole.here
    key = await here.tenant("acme", "inference", "feedback")
    base = [{"name": "base", "weight": 1, "ref": "base"}]
    await here.call("PUT", "/tenants/acme/aliases/support", {"variants": base})
    await here.call("POST", "/tenants/acme/metrics", {"name": "solved", "kind": "boolean"})
    await here.call("POST", "/tenants/acme/metrics", {"name": "rating", "kind": "float"})
    await whole.follow()
    async with await AsyncTensorZeroGateway.build_http(gateway_url=whole.url, api_key=key) as one:
        yield one


async def judged(here: Installation) -> list[tuple[Any, ...]]:
    async with here.db.transaction() as connection:
        rows = await connection.fetch("SELECT * FROM feedback ORDER BY seq")
    return [(row["metric"], row["number"], row["words"], row["inference_id"], row["episode_id"]) for row in rows]


async def ask(client: Any, **more: Any) -> Any:
    return await client.inference(function_name="support", input=INPUT, **more)


async def test_feedback_joins_the_inference_and_the_episode_it_is_about(whole: Whole, client: Any) -> None:
    told = await ask(client)
    given = await client.feedback(metric_name="solved", value=True, inference_id=told.inference_id, tags={"a": "b"})
    await client.feedback(metric_name="rating", value=4, episode_id=told.episode_id)
    await whole.written()  # only now: feedback may come first
    (kept,) = whole.house.records.rows
    assert await judged(whole.here) == [
        ("solved", 1.0, None, kept.id, None),
        ("rating", 4.0, None, None, kept.episode),
    ]
    assert isinstance(given.feedback_id, uuid.UUID)
    async with whole.here.db.transaction() as connection:
        assert await connection.fetchval("SELECT id FROM feedback LIMIT 1") == f"fb-{given.feedback_id.hex}"
        joined = "SELECT count(*) FROM feedback JOIN inferences i ON i.id = inference_id OR i.episode = episode_id"
        assert await connection.fetchval(joined) == 2


async def test_comments_and_demonstrations_need_no_declaration(whole: Whole, client: Any) -> None:
    told = await ask(client)
    await client.feedback(metric_name="comment", value="too long", episode_id=told.episode_id)
    blocks = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]
    for ideal in ("Hello.", blocks, {"a": "ä"}):
        await client.feedback(metric_name="demonstration", value=ideal, inference_id=told.inference_id)
    assert [(metric, words) for metric, _, words, _, _ in await judged(whole.here)] == [
        ("comment", "too long"),
        ("demonstration", "Hello."),
        ("demonstration", "Hello."),
        ("demonstration", '{"a": "ä"}'),
    ]


async def test_a_dry_run_is_checked_and_not_kept(whole: Whole, client: Any) -> None:
    told = await ask(client)
    await client.feedback(metric_name="solved", value=True, inference_id=told.inference_id, dryrun=True)
    with pytest.raises(TensorZeroError):
        await client.feedback(metric_name="solved", value=3.5, inference_id=told.inference_id, dryrun=True)
    assert await judged(whole.here) == []


async def test_what_is_wrong_is_one_sentence_in_their_shape(whole: Whole, client: Any) -> None:
    told = await ask(client)
    inference_only = await whole.here.key("acme", "inference")
    await whole.follow()
    ours = (await whole.house.post({"model": "support", **INPUT}, key=inference_only)).json()

    async def refused(status: int, words: str, **changes: Any) -> None:
        said = {"metric_name": "solved", "value": True, "inference_id": told.inference_id, **changes}
        with pytest.raises(TensorZeroError) as why:
            await client.feedback(**said)
        assert why.value.text is not None
        body = json.loads(why.value.text)
        assert (why.value.status_code, set(body)) == (status, {"error"}) and words in body["error"]

    await refused(404, "No such inference", inference_id=uuid.uuid4())
    await refused(404, "No such inference", inference_id=uuid.UUID(ours["id"].removeprefix("chatcmpl-")[:32]))
    await refused(400, "exactly one of", episode_id=told.episode_id)
    await refused(400, "not declared", metric_name="nobody")
    await refused(400, "Send true or false", value="yes")
    await refused(400, "An ideal answer is text", metric_name="demonstration", value=[{"type": "tool_call"}])
    await refused(400, "belongs to one request", metric_name="demonstration", value="x", inference_id=None,
                  episode_id=told.episode_id)  # fmt: skip
    for body in ({}, {"metric_name": "solved"}, {"metric_name": "solved", "value": None, "inference_id": "x"}, [], 3):
        reply = await whole.house.post(body, path="/feedback", key="wrong")
        assert (reply.status_code, set(reply.json())) == (401, {"error"})
    said = {"metric_name": "solved", "value": True, "episode_id": str(told.episode_id)}
    for body, status in (({**said, "unknown": 1}, 400), (said, 403), (b"{", 400)):
        reply = await whole.house.post(body, path="/feedback", key=inference_only)
        assert (reply.status_code, set(reply.json())) == (status, {"error"})


async def test_no_json_is_too_odd_to_be_refused(whole: Whole, client: Any) -> None:
    key = await whole.here.key("acme", "feedback")
    await whole.follow()
    good = {"metric_name": "solved", "value": True, "episode_id": str(uuid.uuid4())}
    odd: list[Any] = [None, 0, -1, 1e308, "", "x" * 600, [], [[]], {}, {"a": {"a": None}}, [{"type": "text"}], False]
    fields = (*good, "inference_id", "tags", "dryrun", "internal", "extra")
    for body in [{**good, field: value} for field in fields for value in odd] + odd:
        reply = await whole.house.post(
            json.dumps(body).encode(), path="/feedback", key=key, content_type="application/json"
        )
        shape = {"feedback_id"} if reply.status_code == 200 else {"error"}
        assert reply.status_code in (200, 400, 404) and set(reply.json()) == shape, (body, reply.text)


async def test_our_own_endpoint_knows_their_ids_and_theirs_knows_ours(whole: Whole, client: Any) -> None:
    key = await whole.here.key("acme", "inference", "feedback")
    await whole.follow()
    told = await ask(client)
    theirs = {"inference_id": str(told.inference_id), "metric": "solved", "value": True}
    assert (await whole.house.post(theirs, path="/v1/feedback", key=key)).status_code == 200
    chat = (await whole.house.post({"model": "support", **INPUT}, key=key)).json()
    ours = {"inference_id": chat["id"], "metric_name": "solved", "value": False}
    assert (await whole.house.post(ours, path="/feedback", key=key)).status_code == 200
    kept = [row.id for row in whole.house.records.rows]
    assert [one[3] for one in await judged(whole.here)] == kept


tenants = st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True)


@given(tenants)
def test_a_uuid_proves_whom_it_was_given_to(tenant: str) -> None:
    made = identity.new_inference_uuid(SECRET, tenant)
    assert identity.is_inference_of(SECRET, tenant, made)
    written = identity.written_uuid(made)
    parsed = uuid.UUID(written)
    assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, written)
    for spelling in (written, written.upper(), parsed.hex):
        assert identity.inference_of_uuid(SECRET, tenant, spelling) == made
    assert identity.inference_of_uuid(SECRET, tenant + "x", written) is None
    assert identity.inference_of_uuid(b"other", tenant, written) is None


@given(st.uuids() | st.text(max_size=40))
def test_a_made_up_uuid_is_nobodys(made: uuid.UUID | str) -> None:
    assert identity.inference_of_uuid(SECRET, "acme", str(made)) is None


def test_an_ordinary_ids_uuid_proves_nothing_and_those_that_do_never_repeat() -> None:
    ordinary = identity.new_inference_id(SECRET, "acme")
    assert identity.inference_of_uuid(SECRET, "acme", identity.written_uuid(ordinary)) is None
    made = [identity.new_inference_uuid(SECRET, "acme") for _ in range(3000)]
    assert len(set(made)) == len(made)
    assert [one[:12] for one in made] == sorted(one[:12] for one in made)
