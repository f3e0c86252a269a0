"""What of TensorZero's requests goes upstream, what is refused, and how answers are put in its words."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import EngineFailed, GatewayError, InvalidRequest
from gateway.identity import new_inference_uuid, written_uuid
from gateway.serving.answers import Notes
from gateway.serving.aside import Aside
from gateway.serving.dialects import TENSORZERO
from gateway.serving.endpoints import CHAT_COMPLETIONS, INFERENCE, OPENAI_OF_TENSORZERO
from gateway.serving.request import Request, parse
from gateway.serving.sse import payloads
from gateway.serving.tensorzero import FIELDS, FIELDS_OPENAI
from tests.gateway.serving.named import Told
from tests.gateway.serving.test_sse import cuts

EPISODE = "0192f0c1-d2e3-7a4b-8c5d-6e7f8091a2b3"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
BASIS: dict[str, Any] = {"function_name": "f", "input": {"messages": [{"role": "user", "content": "hello"}]}}
ID = new_inference_uuid(b"s" * 32, "acme")
NAMED = Told(ID, "tuned", Aside(episode=EPISODE, tools=frozenset({"f"})))

plain = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5)
words = st.sampled_from(
    ["text", "tool_call", "tool_result", "thought", "file", "user", "assistant", "auto", "strict", "f"]
)
inner = "system messages role content type text arguments id name result value chat_completion json_mode temperature"
inner += " stop_sequences specific parameters raw_arguments"
names = st.sampled_from([*FIELDS, *inner.split()])
anything = st.recursive(
    plain | words, lambda one: st.lists(one, max_size=3) | st.dictionaries(names, one, max_size=4), max_leaves=12
)


def read(**fields: Any) -> Request:
    return parse(json.dumps(BASIS | fields).encode(), INFERENCE)


def sent(**fields: Any) -> dict[str, Any]:
    told = msgspec.json.decode(read(**fields).body("m", "salt"))
    del told["cache_salt"], told["model"]
    return dict(told)


def said(*blocks: Any, role: str = "user") -> list[Any]:
    return list(sent(input={"messages": [{"role": role, "content": list(blocks)}]})["messages"])


def judge(raw: bytes, endpoint: Any) -> None:
    """A valid request whose engine's body our own allow-list for chats takes as it is, or a 4xx in their shape."""
    try:
        request = parse(raw, endpoint)
    except GatewayError as error:
        assert 400 <= error.status < 500
        assert set(json.loads(TENSORZERO.body(error, ""))) == {"error"}
        return
    assert request.aside is not None and str(UUID(request.aside.episode)) == request.aside.episode
    assert (request.messages() or endpoint is OPENAI_OF_TENSORZERO) and request.params() is not None
    request.most_tokens()
    body = msgspec.json.decode(request.body("m", "salt"))
    del body["cache_salt"]
    parse(json.dumps(body).encode(), CHAT_COMPLETIONS)


@settings(deadline=None)
@given(st.dictionaries(names, anything, max_size=5), st.booleans())
def test_any_json_is_a_request_or_a_4xx(body: dict[str, Any], completed: bool) -> None:
    judge(json.dumps(BASIS | body if completed else body).encode(), INFERENCE)


@settings(deadline=None)
@given(st.lists(st.fixed_dictionaries({"role": words, "content": anything | st.lists(anything)}), max_size=3))
def test_any_conversation_is_a_chat_or_a_4xx(messages: list[Any]) -> None:
    judge(json.dumps(BASIS | {"input": {"messages": messages}}).encode(), INFERENCE)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS_OPENAI)), anything, max_size=4))
def test_any_json_on_openais_path_is_a_request_or_a_4xx(body: dict[str, Any]) -> None:
    given = {"model": "tensorzero::function_name::f", "messages": [{"role": "user", "content": "x"}], **body}
    judge(json.dumps(given).encode(), OPENAI_OF_TENSORZERO)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_4xx(raw: bytes) -> None:
    judge(raw, INFERENCE)


def test_what_their_client_sends_with_everything_is_taken_and_stays_here() -> None:
    always: dict[str, Any] = {"model_name": None, "episode_id": None, "namespace": None, "internal": False, "tags": {}}
    always |= {"provider_tools": [], "credentials": {}, "extra_body": [], "extra_headers": [], "params": {}}
    always |= {f"include_{what}": False for what in ("original_response", "raw_response", "raw_usage")}
    always |= {"cache_options": {"max_age_s": None, "enabled": "off"}, "dryrun": None, "stream": None}
    assert sent(**always) == {"messages": BASIS["input"]["messages"]}
    assert read(**always | {"episode_id": EPISODE.upper()}).aside == Aside(episode=EPISODE)


def test_parameters_go_by_the_engines_names() -> None:
    params = {"temperature": 0, "top_p": 0.5, "stop_sequences": ["a"], "frequency_penalty": 1, "presence_penalty": -1}
    wanted = {("stop" if name == "stop_sequences" else name): value for name, value in params.items()}
    told = sent(
        params={"chat_completion": {**params, "reasoning_effort": "low"}, "experimental_best_of_n_sampling": {}}
    )
    assert told == {"messages": BASIS["input"]["messages"], **wanted, "reasoning_effort": "low"}


def test_blocks_become_the_parts_of_a_chat() -> None:
    picture = {"type": "file", "mime_type": "image/png", "data": "AAAA"}
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert said({"type": "text", "text": "a"}) == [{"role": "user", "content": "a"}]
    parts = [{"type": "text", "text": "a"}, shown, {"type": "text", "text": "b"}]
    assert said({"type": "text", "text": "a"}, picture, {"type": "raw_text", "value": "b"})[0]["content"] == parts
    sound = {"type": "file", "mime_type": "audio/mpeg", "data": "AAAA"}
    assert said(sound)[0]["content"] == [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}]
    thought = {"type": "thought", "text": "hm", "signature": "x"}
    assert said(thought, {"type": "text", "text": "a"}, role="assistant") == [
        {"role": "assistant", "content": "a", "reasoning": "hm"}
    ]
    call = {"type": "tool_call", "id": "1", "name": "f", "arguments": {"a": 1}}
    assert said(call, role="assistant")[0]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a":1}'}


@pytest.mark.parametrize(
    ("mode", "format_"),
    [("on", {"type": "json_object"}), ("off", None), ("strict", "json_schema"), (None, "json_schema")],
)
def test_json_modes_say_how_far_the_engine_keeps_to_the_schema(mode: str | None, format_: Any) -> None:
    request = read(output_schema=SCHEMA, params={"chat_completion": {"json_mode": mode}})
    told = request.fields.get("response_format")
    assert (told["type"] if format_ == "json_schema" else told) == format_
    assert request.aside is not None and request.aside.json


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_name": "m"}, "exactly one of"),
        ({"function_name": None}, "exactly one of"),
        ({"episode_id": "conversation-1"}, "expected a UUID"),
        ({"input": {"messages": []}}, "Missing required parameter: 'input.messages'"),
        ({"input": {"messages": [], "tools": []}}, "Known are 'system' and 'messages'"),
        ({"input": {"messages": [{"role": "user", "content": {"tone": "calm"}}]}}, "has no templates"),
        ({"input": {"messages": [{"role": "user", "content": [{"type": "template"}]}]}}, "has no templates"),
        ({"input": {"messages": [{"role": "user", "content": [{"type": "unknown", "data": 1}]}]}}, "expected one of"),
        ({"input": {"messages": [{"role": "user", "content": [{"type": "file", "url": "http://x"}]}]}}, "not fetched"),
        ({"output_schema": {"type": "string", "pattern": "(a|aa)+"}}, "compiled inside the shared engine"),
        ({"params": {"chat_completion": {"json_mode": "on"}}}, "only allowed with 'output_schema'"),
        ({"output_schema": SCHEMA, "params": {"chat_completion": {"json_mode": "tool"}}}, "Use 'strict'"),
        ({"params": {"chat_completion": {"top_k": 5}}}, "Known are"),
        ({"params": {"experimental_mixture_of_n": {"n": 1}}}, "Known is 'chat_completion'"),
        ({"tool_choice": {"specific": "f"}}, "only allowed when 'tools' are specified"),
        ({"additional_tools": [{"type": "openai_custom", "name": "f"}]}, "Known is 'function'"),
        ({"allowed_tools": ["f"]}, "send each tool in 'additional_tools'"),
        ({"include_raw_response": True}, "use /v1/chat/completions"),
        ({"extra_body": [{"pointer": "/a", "value": 1}]}, "no provider"),
        ({"tags": {"n": 1}}, "expected a string"),
        ({"nobody_knows": 1}, "Unknown parameter"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_to_do(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert words in refused.value.message


def event(**delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return b"data: " + json.dumps({"id": f"chatcmpl-{ID}", "choices": [choice]}).encode() + b"\n\n"


@settings(max_examples=50, deadline=None)
@given(st.data(), st.lists(st.text(min_size=1, max_size=4), max_size=6))
def test_a_stream_is_worded_the_same_however_it_is_cut(data: st.DataObject, said: list[str]) -> None:
    calls = [event(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}])]
    calls.append(event(tool_calls=[{"index": 0, "function": {"arguments": "}"}}]))
    ends = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "~"}]}]
    ends.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    told = [event(role="assistant", content=""), *(event(content=one) for one in said), event(reasoning="hm"), *calls]
    told += [b"data: " + json.dumps(one, separators=(",", ":")).encode() + b"\n\n" for one in ends]
    events = INFERENCE.events(wants_usage=True, keep=1 << 20, named=NAMED)
    out = b"".join(map(events.feed, data.draw(cuts(b": hello\n\n" + b"".join(told) + b"data: [DONE]\n\n"))))
    chunks = [json.loads(one) for one in payloads(out)]
    assert out.endswith(b"data: [DONE]\n\n") and events.done
    assert all((one["inference_id"], one["episode_id"]) == (written_uuid(ID), EPISODE) for one in chunks)
    blocks = [block for one in chunks for block in one["content"]]
    assert "".join(one["text"] for one in blocks if one["type"] == "text") == "".join(said)
    assert [one["raw_arguments"] for one in blocks if one.get("id") == "c"] == ["{", "}"]
    assert [one["text"] for one in blocks if one["type"] == "thought"] == ["hm"]
    assert [one["finish_reason"] for one in chunks if "finish_reason" in one] == ["stop_sequence"]
    assert chunks[-1]["usage"] == {"input_tokens": 3, "output_tokens": 2}
    assert INFERENCE.answers.of_stream(events, keep=True) == Notes("stop", 3, 2, "".join(said))


@given(st.binary(max_size=30) | anything.map(lambda value: json.dumps(value).encode()))
def test_an_odd_answer_of_the_engine_is_the_engines_failure(answer: bytes) -> None:
    assert INFERENCE.worded is not None
    try:
        told = json.loads(INFERENCE.worded(answer, NAMED))
    except EngineFailed:
        return
    assert told["content"] == [] and told["usage"] == {"input_tokens": None, "output_tokens": None}


def test_a_call_that_makes_no_sense_is_told_raw() -> None:
    function = {"name": "g", "arguments": "{no"}
    message = {"content": "", "tool_calls": [{"id": "c", "type": "function", "function": function}]}
    answer = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
    assert INFERENCE.worded is not None
    (block,) = json.loads(INFERENCE.worded(answer, NAMED))["content"]
    assert block == {
        "type": "tool_call",
        "id": "c",
        "raw_name": "g",
        "raw_arguments": "{no",
        "name": None,
        "arguments": None,
    }
