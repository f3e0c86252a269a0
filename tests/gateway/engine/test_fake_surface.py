"""The fake's Responses, messages and embeddings, asked by the real SDKs: what they parse is what vLLM sends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from gateway.engine import fake
from gateway.engine.fake_engine import Options

if TYPE_CHECKING:  # its import takes a second and a half, which processes that run other pages can spare
    import anthropic

HELLO: list[Any] = [{"role": "user", "content": "hello there"}]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}}


@pytest.fixture
async def running() -> AsyncIterator[fake.Running]:
    async with fake.running(Options(base_model="base-model", tokens=8)) as running:
        yield running


@pytest.fixture
async def ai(running: fake.Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(running: fake.Running) -> AsyncIterator[anthropic.AsyncAnthropic]:
    import anthropic

    async with anthropic.AsyncAnthropic(base_url=running.url, api_key="any", max_retries=0) as client:
        yield client


async def test_a_response_is_the_same_in_one_piece_and_streamed(ai: openai.AsyncOpenAI) -> None:
    told = await ai.responses.create(model="base-model", input="hello there", instructions="be brief")
    assert (told.status, told.usage and told.usage.output_tokens) == ("completed", 8)
    async with ai.responses.stream(model="base-model", input="hello there", instructions="be brief") as stream:
        seen = [event.type async for event in stream]
        last = await stream.get_final_response()
    assert (last.output_text, last.usage) == (told.output_text, told.usage)
    assert seen[:2] == ["response.created", "response.in_progress"] and seen[-1] == "response.completed"
    short = await ai.responses.create(model="base-model", input="x", max_output_tokens=2)
    assert short.status == "incomplete" and short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"


async def test_a_response_calls_functions_and_fills_schemas(ai: openai.AsyncOpenAI) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": None}
    async with ai.responses.stream(model="base-model", input="x", tools=[tool], tool_choice="required") as stream:
        async for _ in stream:
            pass
        called = (await stream.get_final_response()).output[0]
    assert called.type == "function_call" and json.loads(called.arguments) == {"city": "Oslo"}
    form: Any = {"format": {"type": "json_schema", "name": "w", "schema": SCHEMA}}
    told = await ai.responses.create(model="base-model", input="x", text=form)
    assert json.loads(told.output_text) == {"city": "Oslo"}


async def test_a_message_is_the_same_in_one_piece_and_streamed(claude: anthropic.AsyncAnthropic) -> None:
    told = await claude.messages.create(model="base-model", messages=HELLO, max_tokens=64, system="be brief")
    assert (told.stop_reason, told.usage.output_tokens) == ("end_turn", 8)
    async with claude.messages.stream(
        model="base-model", messages=HELLO, max_tokens=64, system=[{"type": "text", "text": "be brief"}]
    ) as stream:
        words = [word async for word in stream.text_stream]
        last = await stream.get_final_message()
    assert "".join(words) == told.content[0].text == last.content[0].text
    assert (last.usage.input_tokens, last.usage.output_tokens) == (told.usage.input_tokens, told.usage.output_tokens)
    cut = await claude.messages.create(model="base-model", messages=HELLO, max_tokens=2)
    assert cut.stop_reason == "max_tokens"
    stopped = await claude.messages.create(model="base-model", messages=HELLO, max_tokens=9, stop_sequences=[" re:"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " re:")


async def test_a_message_uses_tools(claude: anthropic.AsyncAnthropic) -> None:
    tool: Any = {"name": "weather", "input_schema": SCHEMA}
    asked: Any = {"model": "base-model", "messages": HELLO, "max_tokens": 64, "tools": [tool]}
    for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
        told = await claude.messages.create(**asked, tool_choice=choice)
        assert told.stop_reason == "tool_use" and told.content[0].input == {"city": "Oslo"}
    async with claude.messages.stream(**asked, tool_choice={"type": "any"}) as stream:
        last = await stream.get_final_message()
    assert last.content[0].input == {"city": "Oslo"}


async def test_embeddings_are_numbers_or_base64_of_the_same(ai: openai.AsyncOpenAI) -> None:
    packed = await ai.embeddings.create(model="base-model", input=["a", "b c"])  # base64 is what the SDK asks for
    plain = await ai.embeddings.create(model="base-model", input=["a", "b c"], encoding_format="float")
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert plain.data[0].embedding != plain.data[1].embedding
    assert (plain.usage.prompt_tokens, plain.usage.total_tokens) == (3, 3)
    small = await ai.embeddings.create(model="base-model", input=[1, 2, 3], dimensions=4)
    assert [len(one.embedding) for one in small.data] == [4]


async def test_errors_and_ids_are_vllms(running: fake.Running, ai: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await ai.responses.create(model="nobody", input="x")
    with pytest.raises(openai.NotFoundError, match="not found"):
        await ai.responses.create(model="base-model", input="x", previous_response_id="resp_1")
    async with httpx.AsyncClient(base_url=running.url, headers={"x-request-id": "abc"}) as http:
        asked = {"messages": HELLO, "max_tokens": 4}
        assert (await http.post("/v1/messages", json=asked)).json()["id"] == "chatcmpl-abc"
        assert (await http.post("/v1/embeddings", json={"input": "x"})).json()["id"] == "embd-abc"
        named = await http.post("/v1/responses", json={"input": "x", "request_id": "resp_7"})
        assert named.json()["id"] == "resp_7"  # of the body: the header does not count here
        for path in ("/v1/messages", "/v1/responses", "/v1/embeddings"):
            assert (await http.post(path, json={})).status_code == 400
            await http.post("/fake/faults", json={"lacks": [path]})
            gone = await http.post(path, json=asked)
            assert (gone.status_code, gone.json()["error"]["message"]) == (404, "Not Found")


async def test_a_stream_that_fails_ends_as_vllms_does(running: fake.Running, claude: anthropic.AsyncAnthropic) -> None:
    import anthropic

    running.engine.switch({"error_after_chunks": 3})
    with pytest.raises(anthropic.APIStatusError, match="internal_error"):
        async with claude.messages.stream(model="base-model", messages=HELLO, max_tokens=9) as stream:
            await stream.get_final_message()
    async with httpx.AsyncClient(base_url=running.url) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post("/v1/responses", json={"input": "x", "stream": True})
