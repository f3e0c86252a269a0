"""Responses, Anthropic's messages and embeddings through the door, with the real SDKs: the same rules as for chats."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import openai
import pytest

from gateway.domain import Inference, Tenant
from gateway.identity import cache_salt, canonical_inference_id, is_inference_of
from tests.gateway.serving.house import ACME, HELLO, SECRET, House, open_house, picture, until

if TYPE_CHECKING:  # its import takes a second and a half, which processes that run other pages can spare
    import anthropic

MESSAGE: dict[str, Any] = {"model": "tuned", "messages": HELLO, "max_tokens": 32}
SURFACE: list[tuple[str, dict[str, Any]]] = [
    ("/v1/responses", {"model": "tuned", "input": "hello"}),
    ("/v1/messages", MESSAGE),
    ("/v1/embeddings", {"model": "tuned", "input": "hello"}),
]
STREAMED = SURFACE[:2]


@pytest.fixture
async def claude(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    import anthropic

    async with anthropic.AsyncAnthropic(base_url=house.url, api_key=ACME, max_retries=0) as client:
        yield client


async def row(house: House, number: int = 1) -> Inference:
    """The `number`-th thing remembered: it is written when the answer is out."""
    await until(lambda: len(house.records.rows) >= number)
    return house.records.rows[number - 1]


async def test_a_response_is_assigned_leased_salted_named_and_recorded(house: House) -> None:
    asked: Any = {"model": "tuned", "input": "hello", "user": "ann", "max_output_tokens": 32, "store": True}
    raw = await house.client().responses.with_raw_response.create(**asked)
    told = raw.parse()
    assert told.output_text.startswith("acme/support@1 ") and told.id == raw.headers["x-inference-id"]
    assert told.id.startswith("resp_") and raw.headers["x-adapter"] == "acme/support@1"
    kept, sent = await row(house), (await house.upstream())["body"]
    assert canonical_inference_id(told.id) == kept.id and is_inference_of(SECRET, "acme", kept.id)
    assert told.usage is not None and kept.input_tokens == told.usage.input_tokens
    assert (kept.endpoint, kept.finish_reason, kept.output_tokens) == ("/v1/responses", "stop", 6)
    assert (kept.served, kept.params) == ("acme/support@1", {"max_output_tokens": 32})
    assert sent == {
        "model": "acme/support@1",
        "input": "hello",
        "max_output_tokens": 32,
        "store": False,
        "request_id": told.id,
        "cache_salt": cache_salt(SECRET, "acme"),
    }


async def test_a_streamed_response_says_what_the_whole_one_says(house: House) -> None:
    client = house.client()
    whole = await client.responses.create(model="tuned", input="hello")
    async with client.responses.stream(model="tuned", input="hello") as stream:
        numbers = [event.sequence_number async for event in stream if hasattr(event, "sequence_number")]
        last = await stream.get_final_response()
    assert numbers == sorted(set(numbers))
    assert (last.output_text, last.usage) == (whole.output_text, whole.usage)
    kept = await row(house, 2)
    assert canonical_inference_id(last.id) == kept.id
    assert (kept.stream, kept.finish_reason, kept.output_tokens, kept.outcome) == (True, "stop", 6, "ok")


async def test_a_message_is_assigned_leased_salted_named_and_recorded(
    house: House, claude: anthropic.AsyncAnthropic
) -> None:
    raw = await claude.messages.with_raw_response.create(**MESSAGE, metadata={"user_id": "ann"})
    told = await raw.parse()
    assert told.content[0].text.startswith("acme/support@1 ") and told.id == raw.headers["x-inference-id"]
    assert told.id.startswith("msg_") and told._request_id == raw.headers["x-request-id"]
    kept, sent = await row(house), (await house.upstream())["body"]
    assert canonical_inference_id(told.id) == kept.id
    assert (kept.endpoint, kept.finish_reason, kept.output_tokens) == ("/v1/messages", "stop", 6)
    assert kept.input_tokens == told.usage.input_tokens
    assert sent == MESSAGE | {"model": "acme/support@1", "cache_salt": cache_salt(SECRET, "acme")}
    again = await house.client().chat.completions.create(model="tuned", messages=HELLO, safety_identifier="ann")
    assert again and (await row(house, 2)).unit == kept.unit  # one user, whichever API they come by


async def test_a_streamed_message_says_what_the_whole_one_says(house: House, claude: anthropic.AsyncAnthropic) -> None:
    whole = await claude.messages.create(**MESSAGE)
    async with claude.messages.stream(**MESSAGE) as stream:
        last = await stream.get_final_message()
    assert (last.content[0].text, last.stop_reason) == (whole.content[0].text, whole.stop_reason)
    kept = await row(house, 2)
    assert last.id == f"msg_{kept.id}" and kept.stream
    assert (kept.finish_reason, kept.input_tokens, kept.output_tokens) == ("stop", whole.usage.input_tokens, 6)
    cut = await claude.messages.create(**MESSAGE | {"max_tokens": 3})
    assert cut.stop_reason == "max_tokens" and (await row(house, 3)).finish_reason == "length"


async def test_embeddings_come_from_the_assigned_weights_and_count(house: House) -> None:
    client = house.client()
    tuned = await client.embeddings.create(model="tuned", input=["hello", "you two"])
    base = await client.embeddings.create(model="base", input=["hello", "you two"])
    assert tuned.data[0].embedding != base.data[0].embedding
    kept = await row(house)
    assert (kept.endpoint, kept.input_tokens, kept.output_tokens, kept.finish_reason) == (
        *("/v1/embeddings", 3, None),
        None,
    )
    assert tuned.model_extra is not None and tuned.model_extra["id"] == f"embd-{kept.id}"
    assert (await house.upstream())["body"]["cache_salt"] == cache_salt(SECRET, "acme")


async def test_what_is_kept_is_a_chat_whatever_it_came_as() -> None:
    keeping = picture(tenants=[Tenant("acme", store_content=True), Tenant("zeta")])
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    async with open_house(keeping) as house:
        response: Any = {"model": "tuned", "instructions": "be brief", "input": "hello"}
        for stream in (False, True):
            message = {**MESSAGE, "system": "be brief", "stream": stream}
            for path, body in (("/v1/responses", {**response, "stream": stream}), ("/v1/messages", message)):
                assert (await house.post(body, path=path)).status_code == 200
        await house.post({"model": "tuned", "input": "hello"}, path="/v1/embeddings")
        await row(house, 5)
        for kept in house.records.rows[:4]:
            assert kept.messages == chat
            assert kept.answer is not None and kept.answer.startswith("acme/support@1 re:")
        embedded = house.records.rows[4]
        assert (embedded.messages, embedded.answer) == (None, None)  # nothing that could become an example


@pytest.mark.parametrize(("path", "body"), SURFACE)
async def test_an_engine_that_lacks_an_endpoint_says_so_and_loads_nothing_again(
    house: House, path: str, body: dict[str, Any]
) -> None:
    assert (await house.post(body, path=path)).status_code == 200
    await house.faults(lacks=[path])
    before, resident = (await house.engine())["loads"], house.residency.resident
    refused = await house.post(body, path=path)
    assert refused.status_code == 404 and path in refused.json()["error"]["message"]
    assert (await house.engine())["loads"] == before and house.residency.resident == resident
    assert (await row(house, 2)).outcome == "client_error"


@pytest.mark.parametrize(("path", "body"), SURFACE)
async def test_a_lost_adapter_comes_back_for_every_endpoint(house: House, path: str, body: dict[str, Any]) -> None:
    assert (await house.post(body, path=path)).status_code == 200
    before = (await house.engine())["loads"]
    gone = await house.http.post(f"{house.engine_url}/tuneloop/adapters/evict", json={"name": "acme/support@1"})
    assert gone.json()["evicted"]
    answer = await house.post(body, path=path)
    assert answer.status_code == 200 and answer.headers["x-adapter"] == "acme/support@1"
    assert (await house.engine())["loads"] == before + 1


async def test_anthropics_errors_are_anthropics(house: House, claude: anthropic.AsyncAnthropic) -> None:
    import anthropic

    async def refused(kind: type[anthropic.APIStatusError], word: str, **changes: Any) -> anthropic.APIStatusError:
        with pytest.raises(kind) as told:
            await claude.messages.create(**{**MESSAGE, **changes})
        body: Any = told.value.body
        assert (body["type"], body["error"]["type"], set(body["error"])) == ("error", word, {"type", "message"})
        assert told.value.request_id == body["request_id"]
        return told.value

    await refused(anthropic.NotFoundError, "not_found_error", model="nobody")
    error = await refused(anthropic.BadRequestError, "invalid_request_error", extra_body={"temperature": 9})
    assert "temperature" in error.message and error.request_id
    await house.faults(fail_requests=1)
    await refused(anthropic.InternalServerError, "api_error")
    house.door.draining = True
    await refused(anthropic.InternalServerError, "overloaded_error")
    house.door.draining = False
    claude.api_key = "wrong"
    await refused(anthropic.AuthenticationError, "authentication_error")
    answer = await house.http.get(house.url + "/v1/messages")
    assert answer.status_code == 405 and answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_key_counts_in_either_header_and_one_must_be_there(house: House) -> None:
    shown = {"x-api-key": ACME, "anthropic-version": "2023-06-01", "anthropic-beta": "x"}
    for headers, status in ((shown, 200), ({"authorization": f"Bearer {ACME}"}, 200), ({}, 401)):
        answer = await house.http.post(house.url + "/v1/messages?beta=true", json=MESSAGE, headers=headers)
        assert answer.status_code == status, answer.text
    for path, body in SURFACE:
        assert (await house.post(body, path=path, key="wrong")).status_code == 401
        assert (await house.http.post(house.url + path, content=b"{", headers=shown)).status_code == 400


@pytest.mark.long
@pytest.mark.parametrize("fault", ["error_after_chunks", "cut_after_chunks", "stall_after_chunks"])
async def test_a_response_that_fails_in_its_midst_ends_with_a_numbered_error(house: House, fault: str) -> None:
    await house.faults(**{fault: 5})
    stream = await house.client().responses.create(model="tuned", input="hello", stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(6))
    assert events[-1].type == "error" and events[-1].message and events[-1].code
    kept = await row(house)
    assert kept.outcome in ("engine_error", "timeout") and kept.status == 200


@pytest.mark.parametrize("sent", [0, 1, 2])
async def test_a_response_that_fails_before_its_first_token_is_an_http_error(house: House, sent: int) -> None:
    await house.faults(cut_after_chunks=sent)  # "created" and "in progress" say nothing yet
    with pytest.raises(openai.InternalServerError) as told:
        await house.client().responses.create(model="tuned", input="hello", stream=True)
    kept = await row(house)
    assert (told.value.status_code, kept.status, kept.ttft_ms) == (502, 502, None)


@pytest.mark.long
@pytest.mark.parametrize("fault", ["error_after_chunks", "cut_after_chunks", "stall_after_chunks"])
async def test_a_message_that_fails_in_its_midst_ends_with_anthropics_error(
    house: House, claude: anthropic.AsyncAnthropic, fault: str
) -> None:
    import anthropic

    await house.faults(**{fault: 4})
    words: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as told:
        async with claude.messages.stream(**MESSAGE) as stream:
            async for word in stream.text_stream:
                words.append(word)  # noqa: PERF401 - what came before the error is what this is about
    assert words and told.value.type in ("api_error", "timeout_error")
    assert "ChatCompletion" not in str(told.value)  # the engine's own words stay inside
    kept = await row(house)
    assert kept.outcome in ("engine_error", "timeout") and (kept.output_tokens, kept.finish_reason) == (None, None)
    assert kept.input_tokens == 1  # the first event told


@pytest.mark.parametrize(("path", "body"), STREAMED)
async def test_a_client_that_leaves_ends_the_engines_work(house: House, path: str, body: dict[str, Any]) -> None:
    await house.faults(itl=0.2)
    headers = {"authorization": f"Bearer {ACME}"}
    async with house.http.stream("POST", house.url + path, json={**body, "stream": True}, headers=headers) as answer:
        assert answer.status_code == 200
    await until(lambda: _aborted(house))
    assert (await row(house)).outcome == "disconnected"


async def _aborted(house: House) -> bool:
    state = await house.engine()
    return bool(state["aborted"] == 1 and state["in_flight"] == 0)


async def test_an_experiment_splits_every_endpoint_alike(house: House) -> None:
    variants = set()
    for user in range(12):
        seen = {
            (await house.post({**body, "model": "support"}, path=path, x_targeting_key=f"u{user}")).headers["x-variant"]
            for path, body in SURFACE
        }
        assert len(seen) == 1  # one user, one variant, whatever they call
        variants |= seen
    assert variants == {"base", "tuned"}


async def test_openais_client_gets_openais_errors(house: House) -> None:
    client = house.client()
    with pytest.raises(openai.BadRequestError) as told:
        await client.responses.create(model="tuned", input="x", previous_response_id="resp_1")
    assert (told.value.param, told.value.code) == ("previous_response_id", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError) as lost:
        await client.embeddings.create(model="nobody", input="x")
    assert lost.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        await client.embeddings.create(model="tuned", input="x", extra_body={"stream": True})
