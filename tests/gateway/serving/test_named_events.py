"""Streams of named events pass unchanged however they are cut, and say the same about themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.serving.answers import Notes
from gateway.serving.endpoints import MESSAGES, RESPONSES, Endpoint
from gateway.serving.sse import Events
from tests.gateway.serving.named import Told
from tests.gateway.serving.test_sse import cuts

ID = "0f" * 22
NASTY = ["event: error\n", "\n\nevent: message_stop\ndata: {}\n\n", "data: [DONE]\n\n", '{"error"', "\r\n\r\n", ID]
words = st.lists(st.text(max_size=20) | st.sampled_from(NASTY), min_size=1, max_size=6)


def event(name: str, body: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps({"type": name, **body}).encode())


def response(said: list[str], ending: str = "response.completed") -> tuple[bytes, bytes, Notes]:
    """A stream as the engine writes it, the same as the client gets it, and what is to be noted of it."""
    deltas = [event("response.output_text.delta", {"delta": word, "sequence_number": n}) for n, word in enumerate(said)]
    status, reason = ("incomplete", "length") if ending == "response.incomplete" else ("completed", "stop")
    content = [{"type": "output_text", "text": "".join(said)}]
    last: dict[str, Any] = {"status": status, "output": [{"type": "message", "content": content}]}
    last |= {"usage": {"input_tokens": 3, "output_tokens": len(said)}}
    end = event(ending, {"response": last})
    whole = b"".join([event("response.created", {"response": {"status": "in_progress"}}), *deltas, end])
    return whole, whole, Notes(reason, 3, len(said), "".join(said))


def message(said: list[str], ending: str = "end_turn") -> tuple[bytes, bytes, Notes]:
    def start(name: str) -> bytes:
        return event("message_start", {"message": {"id": name, "usage": {"input_tokens": 3, "output_tokens": 0}}})

    deltas = [event("content_block_delta", {"delta": {"type": "text_delta", "text": word}}) for word in said]
    usage = {"input_tokens": 1, "cache_read_input_tokens": 2, "output_tokens": len(said)}
    end = event("message_delta", {"delta": {"stop_reason": ending}, "usage": usage}) + event("message_stop", {})
    rest = b"".join([event("ping", {}), *deltas, end])
    reason = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls"}[ending]
    notes = Notes(reason, 3, len(said), "".join(said))
    return start(f"chatcmpl-{ID}") + rest, start(f"msg_{ID}") + rest, notes


KINDS = [
    *((RESPONSES, response, ending) for ending in ("response.completed", "response.incomplete")),
    *((MESSAGES, message, ending) for ending in ("end_turn", "max_tokens", "tool_use")),
]


def reader(endpoint: Endpoint, keep: int = 1 << 20) -> Events:
    return endpoint.events(wants_usage=False, keep=keep, named=Told(ID))


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(st.data(), st.sampled_from(KINDS), words, st.booleans())
def test_what_leaves_does_not_depend_on_the_cuts(data: st.DataObject, kind: Any, said: list[str], crlf: bool) -> None:
    endpoint, make, ending = kind
    whole, clients, notes = make(said, ending)
    if crlf:
        whole, clients = whole.replace(b"\n", b"\r\n"), clients.replace(b"\n", b"\r\n")
    events = reader(endpoint)
    pieces = data.draw(cuts(b": keep-alive\n\n" + whole + b"event: late\ndata: {}\n\n"))
    assert b"".join(map(events.feed, pieces)) == b": keep-alive\n\n" + clients
    assert events.done and events.error is None
    assert endpoint.answers.of_stream(events, keep=True) == notes
    assert endpoint.answers.of_stream(events).text is None


@settings(deadline=None)
@given(st.data(), words, st.sampled_from(["error", "response.failed"]))
def test_an_engines_error_and_all_after_it_are_held_back(data: st.DataObject, said: list[str], name: str) -> None:
    deltas = b"".join(event("response.output_text.delta", {"delta": word}) for word in said)
    bad = event(name, {"message": "/srv/secret"}) if data.draw(st.booleans()) else b'data: {"error": {}}\n\n'
    events = reader(RESPONSES)
    out = b"".join(map(events.feed, data.draw(cuts(deltas + bad + response(said)[0]))))
    assert out == deltas and events.error == bad and not events.done
    told = RESPONSES.answers.of_stream(events, keep=True)
    assert told == Notes(text="".join(said))  # how far it came


@given(words, st.integers(0, 400))
def test_a_stream_cut_anywhere_is_neither_done_nor_counted(said: list[str], at: int) -> None:
    for endpoint, make in ((RESPONSES, response), (MESSAGES, message)):
        whole = make(said)[0]
        events = reader(endpoint)
        events.feed(whole[: min(at, len(whole) - 1)])
        notes = endpoint.answers.of_stream(events, keep=True)
        assert not events.done and (endpoint is MESSAGES or notes.output_tokens is None)


def test_an_answer_beyond_the_bound_is_not_kept_by_halves() -> None:
    for endpoint, make in ((RESPONSES, response), (MESSAGES, message)):
        events = reader(endpoint, keep=100)
        events.feed(make(["x" * 80, "y" * 80])[0])
        notes = endpoint.answers.of_stream(events, keep=True)
        assert events.cut and notes.text is None and notes.output_tokens == 2


@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES])
def test_odd_json_costs_a_note_and_not_a_request(endpoint: Endpoint) -> None:
    for body in (b"", b"[]", b"null", b'{"output": 3}', b"\xff", b'{"usage": {"input_tokens": "x"}}', b"[" * 9999):
        assert endpoint.answers.of_body(body, keep=True) in (Notes(), Notes(text=""))
    events = reader(endpoint)
    events.feed(b"event: message_delta\ndata: {\n\nevent: response.completed\ndata: 3\n\n")
    assert endpoint.answers.of_stream(events, keep=True) == Notes()


def test_of_a_message_only_the_id_changes() -> None:
    said = {"id": f"chatcmpl-{ID}", "content": [{"type": "text", "text": f"chatcmpl-{ID}"}]}
    own = MESSAGES.worded
    assert own is not None
    told = json.loads(own(json.dumps(said).encode(), Told(ID)))
    assert told == {**said, "id": f"msg_{ID}"}
