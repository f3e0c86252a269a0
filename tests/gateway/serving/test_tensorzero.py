"""TensorZero's own client on `/inference`: the rules of chats, in its words; and OpenAI's client on the other path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import openai
import pytest
from tensorzero import (
    AsyncTensorZeroGateway,
    ChatInferenceResponse,
    JsonInferenceResponse,
    TensorZeroError,
    TensorZeroGateway,
    Text,
    ToolCall,
    ToolResult,
)

from gateway.domain import Inference, Limits, Shadow, Tenant
from gateway.identity import inference_of_uuid, unit_of
from tests.gateway.serving.house import ACME, HELLO, SECRET, ZETA, House, alias, open_house, picture, until

INPUT: dict[str, Any] = {"system": "be brief", "messages": HELLO}
CHAT = [{"role": "system", "content": "be brief"}, *HELLO]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
TOOL = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": False}


@pytest.fixture
async def client(house: House) -> AsyncIterator[Any]:
    async with await AsyncTensorZeroGateway.build_http(gateway_url=house.url, api_key=ACME) as one:
        yield one


async def row(house: House, number: int = 1) -> Inference:
    await until(lambda: len(house.records.rows) >= number)
    return house.records.rows[number - 1]


async def test_an_inference_is_assigned_leased_salted_and_recorded_as_a_chat_is(house: House, client: Any) -> None:
    params = {"chat_completion": {"temperature": 0.5, "max_tokens": 40, "seed": 7, "stop_sequences": ["~"]}}
    told = await client.inference(function_name="tuned", input=INPUT, params=params, tags={"user_id": "ann", "x": "y"})
    assert isinstance(told, ChatInferenceResponse) and isinstance(told.content[0], Text)
    assert told.content[0].text is not None and told.content[0].text.startswith("acme/support@1 ")
    kept, sent = await row(house), (await house.upstream())["body"]
    assert kept.id == inference_of_uuid(SECRET, "acme", str(told.inference_id))
    assert (kept.endpoint, kept.episode, kept.variant) == ("/inference", str(told.episode_id), told.variant_name)
    assert (kept.input_tokens, kept.output_tokens) == (told.usage.input_tokens, told.usage.output_tokens)
    assert told.finish_reason is not None and (told.finish_reason.value, kept.finish_reason) == ("stop", "stop")
    assert kept.unit == unit_of(SECRET, "acme", "ann")  # the user that the tag names, as with `x-targeting-key`
    assert kept.params == {"temperature": 0.5, "max_tokens": 40, "seed": 7, "metadata": {"x": "y"}}
    del sent["cache_salt"]
    asked = {"temperature": 0.5, "max_tokens": 40, "seed": 7, "stop": ["~"]}
    assert sent == {"model": "acme/support@1", "messages": CHAT, **asked}


@pytest.mark.long
async def test_an_episode_is_born_where_none_is_given_and_stays_on_its_variant(house: House, client: Any) -> None:
    seen = set()
    for _ in range(16):
        first = await client.inference(function_name="support", input=INPUT)
        again = await client.inference(function_name="support", input=INPUT, episode_id=first.episode_id)
        assert (again.episode_id, again.variant_name) == (first.episode_id, first.variant_name)
        assert first.episode_id.version == 7
        seen.add(first.variant_name)
    assert seen == {"base", "tuned"}
    assert house.records.rows[0].episode == house.records.rows[1].episode


async def test_an_episode_begins_on_its_version_once_its_client_comes_back_with_it(house: House) -> None:
    async def asked(variant: str, episode: str | None = None) -> tuple[str, str]:
        ref = None if variant == "base" else "acme/support@1"
        house.current.snapshot = picture(aliases=[alias("acme", "support", (variant, 1, ref))])
        told = {"function_name": "support", "input": INPUT, **({"episode_id": episode} if episode else {})}
        answer = (await house.post(told, path="/inference")).json()
        return answer["variant_name"], answer["episode_id"]

    first, episode = await asked("base")
    assert first == "base"
    assert await asked("tuned", episode) == ("tuned", episode), (
        "most never come back, and would be remembered for nothing"
    )
    assert await asked("base", episode) == ("tuned", episode)


async def test_a_stream_says_what_the_whole_answer_says(house: House, client: Any) -> None:
    whole: Any = await client.inference(function_name="tuned", input=INPUT)
    chunks: list[Any] = [one async for one in await client.inference(function_name="tuned", input=INPUT, stream=True)]
    assert "".join(block.text for chunk in chunks for block in chunk.content) == whole.content[0].text
    assert chunks[-1].usage == whole.usage
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [whole.finish_reason]
    assert len({(chunk.inference_id, chunk.episode_id, chunk.variant_name) for chunk in chunks}) == 1
    kept = await row(house, 2)
    assert (kept.stream, kept.finish_reason, kept.output_tokens) == (True, "stop", 6)
    assert kept.id == inference_of_uuid(SECRET, "acme", str(chunks[0].inference_id))


async def test_tools_go_out_and_their_calls_and_results_come_back_in(house: House, client: Any) -> None:
    asked: Any = {"function_name": "tuned", "additional_tools": [TOOL], "tool_choice": {"specific": "f"}}
    told: Any = await client.inference(input=INPUT, **asked)
    call = told.content[0]
    assert isinstance(call, ToolCall) and (call.name, call.raw_name) == ("f", "f")
    assert call.arguments == json.loads(call.raw_arguments) and set(call.arguments) == {"a"}
    chunks = [one async for one in await client.inference(input=INPUT, stream=True, **asked)]
    pieces: list[Any] = [block for chunk in chunks for block in chunk.content]
    assert "".join(piece.raw_arguments for piece in pieces) == call.raw_arguments
    answered = [*HELLO, {"role": "assistant", "content": told.content}]
    answered.append({"role": "user", "content": [ToolResult(id=call.id, name="f", result="4"), Text(text="so?")]})
    await client.inference(function_name="tuned", input={"messages": answered}, episode_id=told.episode_id)
    function = {"name": "f", "arguments": call.raw_arguments}
    assert (await house.upstream())["body"]["messages"] == [
        *HELLO,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "id": call.id, "function": function}],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "4"},
        {"role": "user", "content": "so?"},
    ]


async def test_an_output_schema_makes_it_a_json_function(house: House, client: Any) -> None:
    told = await client.inference(function_name="tuned", input=INPUT, output_schema=SCHEMA)
    assert isinstance(told, JsonInferenceResponse) and told.output.raw is not None
    assert told.output.parsed == json.loads(told.output.raw) and told.output.parsed is not None
    wanted = (await house.upstream())["body"]["response_format"]
    assert wanted["type"] == "json_schema" and wanted["json_schema"]["schema"] == SCHEMA
    chunks: list[Any] = [
        one
        async for one in await client.inference(function_name="tuned", input=INPUT, output_schema=SCHEMA, stream=True)
    ]
    assert "".join(chunk.raw for chunk in chunks) == told.output.raw


async def test_a_dry_run_is_answered_and_not_recorded(house: House, client: Any) -> None:
    await client.inference(function_name="tuned", input=INPUT, dryrun=True)
    await client.inference(function_name="tuned", input=INPUT)
    assert (await row(house)).params == {} and len(house.records.rows) == 1


@pytest.mark.long
async def test_a_pinned_variant_takes_no_part_and_needs_the_tenants_leave() -> None:
    snapshot = picture(tenants=[Tenant("acme"), Tenant("zeta", allow_pinning=False)])
    async with open_house(snapshot) as house:
        for key in (ACME, ZETA):
            client = await AsyncTensorZeroGateway.build_http(gateway_url=house.url, api_key=key)
            async with client:
                asked: Any = {"function_name": "support", "variant_name": "tuned", "input": INPUT}
                if key == ACME:
                    assert (await client.inference(**asked)).variant_name == "tuned"
                    assert house.records.rows[0].reason == "targeting_match"
                else:
                    with pytest.raises(TensorZeroError) as refused:
                        await client.inference(**asked)
                    assert refused.value.status_code == 404


async def test_errors_are_one_sentence_in_their_shape(house: House, client: Any) -> None:
    async def refused(status: int, words: str, **changes: Any) -> None:
        with pytest.raises(TensorZeroError) as told:
            await client.inference(**{"function_name": "tuned", "input": INPUT, **changes})
        assert told.value.text is not None
        body = json.loads(told.value.text)
        assert (told.value.status_code, set(body)) == (status, {"error"}) and words in body["error"]

    block = {"type": "text", "arguments": {"tone": "calm"}}
    await refused(400, "render the prompt in your own code", input={"messages": [{"role": "user", "content": [block]}]})
    await refused(400, "render the prompt in your own code", input={"system": {"tone": "calm"}})
    await refused(400, "no provider", credentials={"key": "x"})
    await refused(400, "'additional_tools'", allowed_tools=["f"])
    await refused(400, "A tenant is what a namespace was", namespace="emea")
    await refused(404, "does not exist", function_name="nobody")
    await refused(400, "exactly one of", model_name="tuned")
    await house.faults(fail_requests=1)
    await refused(502, "engine")
    house.door.draining = True
    await refused(503, "shutting down")
    house.door.draining = False
    async with await AsyncTensorZeroGateway.build_http(gateway_url=house.url, api_key="wrong") as stranger:
        with pytest.raises(TensorZeroError) as unknown:
            await stranger.inference(function_name="tuned", input=INPUT)
        assert unknown.value.status_code == 401


@pytest.mark.long
@pytest.mark.parametrize("fault", ["error_after_chunks", "cut_after_chunks"])
async def test_a_stream_that_fails_in_its_midst_says_so_and_has_no_end(house: House, fault: str) -> None:
    await house.faults(**{fault: 4})
    told = await house.post({"function_name": "tuned", "input": INPUT, "stream": True}, path="/inference")
    events = [line.removeprefix("data: ") for line in told.text.splitlines() if line]
    assert set(json.loads(events[-1])) == {"error"} and "[DONE]" not in told.text
    assert (await row(house)).outcome == "engine_error"


@pytest.mark.long
async def test_the_synchronous_client_works_too(house: House) -> None:
    def ask() -> Any:
        with TensorZeroGateway.build_http(gateway_url=house.url, api_key=ACME) as client:
            list(client.inference(model_name="tuned", input=INPUT, stream=True))
            return client.inference(model_name="tuned", input=INPUT)

    assert (await asyncio.to_thread(ask)).variant_name == "tuned"


async def test_openais_client_finds_their_names_on_their_path(house: House) -> None:
    async with openai.AsyncOpenAI(base_url=f"{house.url}/openai/v1", api_key=ACME, max_retries=0) as client:
        extra = {"tensorzero::tags": {"user_id": "ann"}, "tensorzero::variant_name": "tuned"}
        told: Any = await client.chat.completions.create(
            model="tensorzero::function_name::support", messages=HELLO, extra_body=extra
        )
        kept = await row(house)
        assert kept.id == inference_of_uuid(SECRET, "acme", told.id) and kept.episode == told.episode_id
        assert (kept.unit, kept.variant) == (unit_of(SECRET, "acme", "ann"), "tuned")
        more = {"tensorzero::episode_id": told.episode_id, "tensorzero::dryrun": True}
        stream: Any = await client.chat.completions.create(
            model="tensorzero::model_name::tuned", messages=HELLO, stream=True, extra_body=more
        )
        chunks = [chunk async for chunk in stream]
        assert {chunk.episode_id for chunk in chunks} == {told.episode_id}
        assert len({UUID(chunk.id) for chunk in chunks}) == 1
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="tensorzero::function_name::nobody", messages=HELLO)
        assert len(house.records.rows) == 1  # the second was a dry run, the third came to no assignment


@pytest.mark.long
async def test_content_is_kept_as_a_chat_whole_and_streamed() -> None:
    keeping = picture(tenants=[Tenant("acme", store_content=True), Tenant("zeta")])
    async with open_house(keeping) as house:
        for stream in (False, True):
            await house.post({"function_name": "tuned", "input": INPUT, "stream": stream}, path="/inference")
        await row(house, 2)
        for kept in house.records.rows:
            assert kept.messages == CHAT
            assert kept.answer is not None and kept.answer.startswith("acme/support@1 re:")


async def test_limits_lost_adapters_and_shadows_are_those_of_chats() -> None:
    limited = Tenant("acme", limits=Limits(requests_per_minute=3))
    aliases = [alias("acme", "tuned", ("tuned", 1, "acme/support@1"), shadow=Shadow(None, 1.0))]
    async with open_house(picture(tenants=[limited], aliases=aliases)) as house:
        body = {"function_name": "tuned", "input": INPUT}
        assert (await house.post(body, path="/inference")).headers["x-ratelimit-remaining-requests"] == "2"
        shadow = await row(house, 2)
        assert (shadow.endpoint, shadow.shadow_of, shadow.variant) == ("/inference", house.records.rows[0].id, "shadow")
        before = (await house.engine())["loads"]
        await house.http.post(f"{house.engine_url}/tuneloop/adapters/evict", json={"name": "acme/support@1"})
        assert (await house.post(body, path="/inference")).status_code == 200
        assert (await house.engine())["loads"] == before + 1
        await house.post(body, path="/inference")
        refused = await house.post(body, path="/inference")
        assert (refused.status_code, set(refused.json())) == (429, {"error"}) and refused.headers["retry-after"]
