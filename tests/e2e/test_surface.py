"""What our allow-lists let through, the real vLLM understands; what it answers, we can read, under the id we gave."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.engine.refusals import lacks_route
from gateway.serving.answers import Notes
from gateway.serving.endpoints import EMBEDDINGS, MESSAGES, RESPONSES, Endpoint
from gateway.serving.request import parse
from tests.e2e.conftest import RealEngine
from tests.e2e.test_engine import load
from tests.gateway.serving.named import Told

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

NAME = "acme/support@1"
SALT = "0123456789abcdef" * 4
TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
SAID = {"type": "output_text", "text": "Red.", "annotations": [], "logprobs": None}
ITEMS: list[Any] = [
    {"role": "user", "content": "Name a colour."},
    {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": None},
    {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [SAID]},
    {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
    {"type": "function_call_output", "call_id": "c", "output": "4"},
    {"role": "user", "content": [{"type": "input_text", "text": "Another one."}]},
]
BLOCKS: list[Any] = [
    {"role": "user", "content": [{"type": "text", "text": "Name a colour.", "cache_control": {"type": "ephemeral"}}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "4"}]},
]
ASKED: list[tuple[Endpoint, dict[str, Any]]] = [
    (RESPONSES, {"input": "Name a colour."}),
    (RESPONSES, {"input": ITEMS, "instructions": "Be brief.", "store": True, "truncation": "auto"}),
    (RESPONSES, {"input": "x", "tools": [{"type": "function", **TOOL}], "temperature": 0.5, "seed": 7, "top_k": 5}),
    (MESSAGES, {"messages": [{"role": "user", "content": "Name a colour."}]}),
    (MESSAGES, {"messages": BLOCKS, "system": [{"type": "text", "text": "Be brief."}], "stop_sequences": ["\x01"]}),
]


def ask(client: httpx.Client, endpoint: Endpoint, fields: dict[str, Any], *, stream: bool = False) -> tuple[str, Any]:
    """The gateway's own request: the id it is given, and the engine's reply."""
    bound = {} if endpoint is EMBEDDINGS else {"stream": stream}
    if endpoint is not EMBEDDINGS:
        bound["max_output_tokens" if endpoint is RESPONSES else "max_tokens"] = 6
    request = parse(json.dumps({"model": "support", **bound, **fields}).encode(), endpoint)
    bare = uuid.uuid4().hex + "0" * 12
    reply = client.post(endpoint.path, content=request.body(NAME, SALT, bare), headers=headers(bare))
    return bare, reply


def headers(bare: str) -> dict[str, str]:
    return {"content-type": "application/json", "x-request-id": bare}


def check(notes: Notes) -> None:
    assert notes.finish_reason in ("stop", "length") and notes.input_tokens and notes.output_tokens
    assert notes.text is not None


@pytest.mark.parametrize(("endpoint", "fields"), ASKED)
def test_an_answer_comes_under_our_id_and_says_what_it_took(
    real_engine: RealEngine, adapters: list[Path], endpoint: Endpoint, fields: dict[str, Any]
) -> None:
    with real_engine.client() as client:
        assert load(client, NAME, adapters[0]).status_code == 200
        bare, whole = ask(client, endpoint, fields)
        assert whole.status_code == 200, whole.text
        body = endpoint.worded(whole.content, Told(bare)) if endpoint.worded is not None else whole.content
        assert json.loads(body)["id"] == endpoint.id_prefix + bare and json.loads(body)["model"] == NAME
        check(endpoint.answers.of_body(body, keep=True))

        bare, streamed = ask(client, endpoint, fields, stream=True)
        events = endpoint.events(wants_usage=False, keep=1 << 20, named=Told(bare))
        out = b"".join(events.feed(streamed.content[at : at + 50]) for at in range(0, len(streamed.content), 50))
        assert events.done and events.error is None, streamed.text
        assert (endpoint.id_prefix + bare).encode() in out and b"chatcmpl-" + bare.encode() not in out
        check(endpoint.answers.of_stream(events, keep=True))


def test_what_it_does_not_serve_is_told_from_what_it_does_not_hold(real_engine: RealEngine) -> None:
    with real_engine.client() as client:
        _, none = ask(client, EMBEDDINGS, {"input": "x"})
        assert none.status_code == 404 and lacks_route(none.status_code, none.content)
        for endpoint, fields in (ASKED[0], ASKED[3]):
            _, lost = ask(client, endpoint, fields)
            assert lost.status_code == 404 and not lacks_route(lost.status_code, lost.content), lost.text
