"""The allow-lists of Responses, Anthropic's messages and embeddings: what reaches the engine, and in which shape."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.serving.endpoints import (
    CHAT_COMPLETIONS,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    MESSAGES,
    RESPONSES,
    Endpoint,
)
from gateway.serving.request import parse
from tests.gateway.serving.surface import BASIS, HELLO, PICTURE, REMOTE, SCHEMA, SOURCE, read, sent, taken, tool


def test_what_a_client_echoes_of_an_answer_is_taken_and_stripped() -> None:
    said = {"type": "output_text", "text": "hi", "annotations": [], "logprobs": None}
    items: list[Any] = [
        {"role": "user", "content": "hello"},
        {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": None, "status": None},
        {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [said]},
        {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": "4"},
        {"role": "user", "content": [{"type": "input_text", "text": "and?"}]},
    ]
    request = read(RESPONSES, instructions="be brief", input=items)
    assert sent(RESPONSES, input=items)["input"] == [
        {"type": "message", "role": "user", "content": "hello"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hi"}],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": "4"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and?"}]},
    ]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert request.messages() == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "4"},
        {"role": "user", "content": "and?"},
    ]


def test_a_conversation_with_tools_and_pictures_reaches_the_engine_as_anthropic_words_it() -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    used = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "1"}}
    answered = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "4"}]}
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "look", **cached}, {"type": "image", "source": SOURCE}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, used]},
        {"role": "user", "content": [answered | {"is_error": False}, {"type": "text", "text": "and?"}]},
    ]
    request = read(MESSAGES, system=[{"type": "text", "text": "be brief", **cached}], messages=messages)
    told = msgspec.json.decode(request.body("m", "s", "i"))
    del messages[0]["content"][0]["cache_control"]
    assert (told["messages"], told["system"]) == (messages, [{"type": "text", "text": "be brief"}])
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a": "1"}'}}
    look = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    assert request.messages() == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": look},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t", "content": "4"},
        {"role": "user", "content": "and?"},
    ]


def test_what_shapes_an_answer_passes() -> None:
    form = {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}
    shaping: dict[str, Any] = {
        "temperature": 0.1,
        "top_p": 0.9,
        "top_k": 5,
        "seed": 7,
        "truncation": "auto",
        "top_logprobs": 2,
        "include": ["message.output_text.logprobs"],
        "reasoning": {"effort": "low"},
        "text": {"format": form},
        "tools": tool(strict=False, description="d"),
        "tool_choice": {"type": "function", "name": "f"},
    }
    assert sent(RESPONSES, **shaping) == {"input": "hello", **shaping}
    dropped: dict[str, Any] = {"store": True, "metadata": {"a": "b"}, "service_tier": "auto", "background": False}
    dropped |= {"text": {"format": {"type": "text"}}, "reasoning": {"summary": "auto"}, "include": []}
    assert sent(RESPONSES, **dropped, stream_options={"include_obfuscation": False}) == {"input": "hello"}

    forced = {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    shaping = {
        "temperature": 1,
        "top_k": 5,
        "top_p": 0.9,
        "stop_sequences": ["x"],
        "thinking": {"type": "adaptive"},
        "tools": taken(description="d"),
        "tool_choice": forced,
        "output_config": {"effort": "low"},
    }
    assert sent(MESSAGES, **shaping) == {"messages": HELLO, "max_tokens": 64, **shaping}
    dropped = {"service_tier": "auto", "cache_control": {"type": "ephemeral"}, "inference_geo": "eu"}
    request = read(MESSAGES, **dropped, metadata={"user_id": "ann"})
    assert request.targeting == "ann" and set(request.fields) == {"messages", "max_tokens"}

    shaping = {"input": [[1, 2], "x"], "dimensions": 4, "encoding_format": "base64"}
    assert sent(EMBEDDINGS, **shaping, user="ann") == shaping
    assert read(EMBEDDINGS, user="ann").targeting == "ann" and read(EMBEDDINGS).messages() is None


texts = st.text(max_size=8) | st.sampled_from(["function", "message", "text", "image", "user", "url", REMOTE])
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)
NAMES = sorted({name for endpoint in BASIS for name in endpoint.fields} | {"type", "content", "role", "source"})


@pytest.mark.long
@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(st.sampled_from(sorted(BASIS, key=lambda one: one.path)), st.dictionaries(st.sampled_from(NAMES), junk))
def test_whatever_comes_is_refused_in_words_or_goes_on_within_the_list(endpoint: Endpoint, extra: Any) -> None:
    try:
        request = parse(json.dumps(BASIS[endpoint] | extra).encode(), endpoint)
    except InvalidRequest as error:
        assert error.status == 400 and error.message
        return
    told = msgspec.json.decode(request.body("engine", "salt", "0f"))
    assert set(told) <= set(endpoint.fields) | {"cache_salt", "request_id"} and told["model"] == "engine"
    assert REMOTE not in json.dumps(told.get("tools", "")) or '"description"' in json.dumps(told["tools"])
    request.params(), request.messages()


def test_every_endpoint_is_found_by_its_path() -> None:
    for path, endpoint in ENDPOINTS.items():
        assert endpoint.path == path and set(endpoint.needs) <= set(endpoint.fields)
        assert endpoint.raw_path.decode() in ENDPOINTS  # TensorZero's are the engine's chat completions


def test_the_bound_of_an_answer_is_known_beforehand_for_every_endpoint() -> None:
    def most(endpoint: Endpoint, **fields: Any) -> int | None:
        return parse(json.dumps({"model": "m", **fields}).encode(), endpoint).most_tokens()

    assert most(CHAT_COMPLETIONS, messages=HELLO) is most(RESPONSES, input="x") is None
    assert most(CHAT_COMPLETIONS, messages=HELLO, max_tokens=5, n=3) == 15
    assert most(CHAT_COMPLETIONS, messages=HELLO, max_tokens=5, max_completion_tokens=4) == 4
    assert most(COMPLETIONS, prompt="x") == most(COMPLETIONS, prompt=[1, 2]) == 16
    assert most(COMPLETIONS, prompt=["x", "y"], max_tokens=5, n=2) == most(COMPLETIONS, prompt=[[1]], max_tokens=20)
    assert most(RESPONSES, input="x", max_output_tokens=7) == most(MESSAGES, messages=HELLO, max_tokens=7) == 7
    assert most(EMBEDDINGS, input="x") == 0
