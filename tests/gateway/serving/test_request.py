"""The allow-list: what reaches the engine, what is refused, and with which code."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.serving.fields import CHAT, REFUSED, TEXT
from gateway.serving.request import CHAT_COMPLETIONS, COMPLETIONS, Request, parse

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> Request:
    return parse(json.dumps({"model": "m", "messages": HELLO} | fields).encode(), CHAT_COMPLETIONS)


def complete(**fields: Any) -> Request:
    return parse(json.dumps({"model": "m", "prompt": "hi"} | fields).encode(), COMPLETIONS)


def sent(request: Request) -> dict[str, Any]:
    told = msgspec.json.decode(request.body("acme/support@1", "salt"))
    assert told.pop("cache_salt") == "salt" and told.pop("model") == "acme/support@1"
    return dict(told)


def test_a_plain_request_goes_on_as_it_is() -> None:
    fields = {"max_tokens": 5, "temperature": 0.2, "stop": ["a"], "seed": -7, "logit_bias": {"12": -100}, "top_p": 1}
    assert sent(chat(**fields)) == {"messages": HELLO, **fields}


@pytest.mark.parametrize(
    "field", ["user", "safety_identifier", "prompt_cache_key", "metadata", "store", "service_tier", "prediction"]
)
def test_openais_own_house_keeping_is_taken_and_not_sent(field: str) -> None:
    value: Any = {"metadata": {"a": "b"}, "store": True, "prediction": {"type": "content"}}.get(field, "x")
    assert sent(chat(**{field: value})) == {"messages": HELLO}


def test_null_is_as_good_as_absent() -> None:
    assert sent(chat(**dict.fromkeys([*CHAT, *REFUSED], None) | {"model": "m", "messages": HELLO})) == {
        "messages": HELLO
    }


def test_the_targeting_key_comes_in_the_order_of_the_design() -> None:
    assert chat(user="u", prompt_cache_key="c", safety_identifier="s").targeting == "s"
    assert chat(user="u", prompt_cache_key="c").targeting == "u"
    assert chat(prompt_cache_key="c").targeting == "c"
    assert chat(user="").targeting is None


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": ["x"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"role": "god", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 3}, "model", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"n": 9}, "n", "integer_above_max_value"),
        ({"temperature": -0.1}, "temperature", "decimal_below_min_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"top_p": 0}, "top_p", "decimal_below_min_value"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "integer_above_max_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"echo": True, "logprobs": True}, "echo", "unsupported_parameter"),
        ({"stop": ["x"] * 17}, "stop", "array_above_max_length"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"seed": 2**63}, "seed", "integer_above_max_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "decimal_above_max_value"),
        ({"prompt_logprobs": 1}, "prompt_logprobs", "unsupported_parameter"),
        ({"bad_words": ["x"]}, "bad_words", "unsupported_parameter"),
        ({"allowed_token_ids": [1]}, "allowed_token_ids", "unsupported_parameter"),
        ({"cache_salt": "theirs"}, "cache_salt", "unsupported_parameter"),
        ({"chat_template": "{{ x }}"}, "chat_template", "unsupported_parameter"),
        ({"chat_template_kwargs": {"tokenize": False}}, "chat_template_kwargs.tokenize", "unsupported_parameter"),
        ({"structured_outputs": {"regex": "(a|aa)+b"}}, "structured_outputs.regex", "unsupported_parameter"),
        ({"guided_regex": "(a|aa)+b"}, "guided_regex", "unsupported_parameter"),
        ({"response_format": {"type": "structural_tag"}}, "response_format", "unsupported_parameter"),
        ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
        ({"kv_transfer_params": {}}, "kv_transfer_params", "unknown_parameter"),
        ({"typo": 1}, "typo", "unknown_parameter"),
        ({"tools": []}, "tools", "empty_array"),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_value"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        chat(**fields)
    assert (error.value.status, error.value.param, error.value.code) == (400, param, code)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["x"] * 65}, "prompt"),
        ({"prompt": ["x"] * 33, "n": 2}, "n"),
        ({"prompt": [1, -1]}, "prompt"),
        ({"prompt": [1, "x"]}, "prompt"),
        ({"prompt_embeds": "aGVsbG8="}, "prompt_embeds"),
        ({"best_of": 4}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"messages": HELLO}, "messages"),
    ],
)
def test_completions_have_bounds_of_their_own(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        complete(**fields)
    assert error.value.param == param


def test_prompts_of_all_four_kinds_pass() -> None:
    for prompt in ("hi", ["a", "b"], [1, 2, 3], [[1], [2, 3]]):
        assert sent(complete(prompt=prompt, best_of=1)) == {"prompt": prompt}
    assert complete(prompt=[1, 2]).messages() == [{"role": "user", "content": "[1,2]"}]


def test_streams_always_ask_for_usage_upstream() -> None:
    quiet, asked = (
        chat(stream=True),
        chat(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}),
    )
    assert (quiet.wants_usage, asked.wants_usage) == (False, True)
    assert sent(quiet)["stream_options"] == {"include_usage": True}
    assert sent(asked)["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert not chat(stream=True, stream_options={"include_usage": False, "include_obfuscation": False}).wants_usage


def test_a_conversation_with_tools_comes_through_without_the_clients_echoes() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    echoed = answer | {"refusal": None, "annotations": [], "audio": None, "function_call": None}
    tool = {"role": "tool", "tool_call_id": "c1", "content": "42"}
    assert sent(chat(messages=[*HELLO, echoed, tool]))["messages"] == [*HELLO, answer, tool]


def test_media_travel_inline_or_not_at_all() -> None:
    def image(url: str) -> list[Any]:
        return [
            {
                "role": "user",
                "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}],
            }
        ]

    inline = image("data:image/png;base64,AAAA")
    assert sent(chat(messages=inline))["messages"] == inline
    for url in ("http://169.254.169.254/x.png", "https://x/y", "file:///etc/passwd", "data:text/html,x", "ftp://x"):
        with pytest.raises(InvalidRequest) as error:
            chat(messages=image(url))
        assert error.value.code == "invalid_image_url"
    for part in (
        {"type": "video_url", "video_url": {"url": "http://x"}},
        {"image_url": "http://x"},
        {"type": "image_embeds"},
    ):
        with pytest.raises(InvalidRequest):
            chat(messages=[{"role": "user", "content": [part]}])


def schema(inner: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"pattern": inner}}},
    }


def test_schemas_pass_without_patterns_of_the_clients() -> None:
    fine = schema({"type": "string", "enum": ["a"], "description": "the pattern"})
    assert sent(chat(response_format=fine))["response_format"] == fine
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(40):
        deep = {"type": "array", "items": deep}
    for bad in (
        {"type": "string", "pattern": "(a|aa)+b"},
        {"anyOf": [{"items": {"pattern": "x"}}]},
        {"patternProperties": {}},
        deep,
    ):
        with pytest.raises(InvalidRequest):
            chat(response_format=schema(bad))
        with pytest.raises(InvalidRequest):
            chat(structured_outputs={"json": json.dumps(bad)})
        forced = {"type": "function", "function": {"name": "f", "parameters": bad}}
        with pytest.raises(InvalidRequest):
            chat(tools=[forced], tool_choice="required")
    offered = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"pattern": "x"}}}}}
    assert sent(chat(tools=[offered], tool_choice="auto"))["tools"] == [offered]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"model": NaN}',
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "\xff"}',
        b'{"a":' * 5000,
        b"[" * 100_000,
        b'{"temperature": 1e999}',
    ],
)
def test_broken_json_is_the_clients_error(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(raw, CHAT_COMPLETIONS)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"a","messages":[],"messages":[{"role":"user","content":"x"}]}',
        b'{"model": "a", "messages": [{"role": "user", "content": "x", "role": "system"}]}',
        b'{"model":"a","mess\\u0061ges":[],"messages":[{"role":"user","content":"x"}]}',
    ],
)
def test_a_key_that_comes_twice_is_refused_wherever_it_is(raw: bytes) -> None:
    with pytest.raises(InvalidRequest, match="comes twice"):
        parse(raw, CHAT_COMPLETIONS)


def test_the_record_of_parameters_holds_no_text_of_the_client() -> None:
    request = chat(stop=["my secret"], temperature=0.5, tools=[TOOL], tool_choice="auto", stream=True, user="bob")
    assert request.params() == {"temperature": 0.5, "tool_choice": "auto", "stream": True}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(st.dictionaries(st.sampled_from([*CHAT, *TEXT, *REFUSED, "other"]), values, max_size=5), st.booleans())
def test_anything_is_either_sent_within_the_allow_list_or_refused(fields: dict[str, Any], is_chat: bool) -> None:
    raw = json.dumps(({"messages": HELLO} if is_chat else {"prompt": "x"}) | {"model": "m"} | fields).encode(
        errors="replace"
    )
    try:
        request = parse(raw, CHAT_COMPLETIONS if is_chat else COMPLETIONS)
    except InvalidRequest as error:
        assert json.loads(error.body())["error"]["message"]
    else:
        assert sent(request).keys() <= (CHAT if is_chat else TEXT).keys()
