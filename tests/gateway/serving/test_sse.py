"""Events pass unchanged however they are cut; only what the client did not ask for is taken out."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.serving import answers
from gateway.serving.sse import Events

text = st.text(max_size=20) | st.sampled_from(['"choices":[]', "data: [DONE]\n\n", '{"error"', "\r\n\r\n", "\\n\\n"])


def event(body: Any, *, spaced: bool) -> bytes:
    return b"data: " + json.dumps(body, separators=None if spaced else (",", ":")).encode() + b"\n\n"


def stream(words: list[str], *, spaced: bool, crlf: bool, ping: bytes) -> tuple[bytes, bytes]:
    """A whole stream, and the same without its usage event."""
    last = len(words) - 1
    events = [
        event(
            {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": "stop" if i == last else None}]},
            spaced=spaced,
        )
        for i, word in enumerate(words)
    ]
    usage = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(words)}}, spaced=spaced)
    with_usage = b"".join([ping, *events, usage, b"data: [DONE]\n\n"])
    without = b"".join([ping, *events, b"data: [DONE]\n\n"])
    if crlf:
        return with_usage.replace(b"\n\n", b"\r\n\r\n"), without.replace(b"\n\n", b"\r\n\r\n")
    return with_usage, without


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    at = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=30))})
    return [data[a:b] for a, b in pairwise(at)]


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(
    data=st.data(),
    words=st.lists(text, min_size=1, max_size=6),
    spaced=st.booleans(),
    crlf=st.booleans(),
    ping=st.sampled_from([b"", b": ping\n\n"]),
    wanted=st.booleans(),
)
def test_what_leaves_does_not_depend_on_the_cuts(
    data: st.DataObject, words: list[str], spaced: bool, crlf: bool, ping: bytes, wanted: bool
) -> None:
    whole, without = stream(words, spaced=spaced, crlf=crlf, ping=ping)
    events = Events(wants_usage=wanted, keep=1 << 20)
    out = b"".join(events.feed(piece) for piece in data.draw(cuts(whole)))
    assert out == (whole if wanted else without)
    assert events.done and events.error is None
    notes = answers.of_stream(events, keep=True)
    assert notes == answers.Notes("stop", 3, len(words), "".join(words))


@given(st.data(), st.lists(text, max_size=4))
def test_an_engines_error_and_all_after_it_are_held_back(data: st.DataObject, words: list[str]) -> None:
    said = b"".join(event({"choices": [{"delta": {"content": word}}]}, spaced=False) for word in words)
    whole = said + b'data: {"error": {"message": "secret"}}\n\ndata: [DONE]\n\n'
    events = Events(wants_usage=False)
    out = b"".join(events.feed(piece) for piece in data.draw(cuts(whole)))
    assert out == said and not events.done
    assert events.error is not None and b"secret" in events.error


def test_an_answer_beyond_the_bound_is_not_kept_by_halves() -> None:
    events = Events(wants_usage=False, keep=100)
    for _ in range(5):
        events.feed(event({"choices": [{"delta": {"content": "x" * 20}}]}, spaced=False))
    assert events.cut and answers.of_stream(events, keep=True).text is None


def test_odd_json_costs_a_note_and_not_a_request() -> None:
    for body in (b"", b"[]", b"null", b'{"choices": 3}', b"\xff", b'{"usage": {"prompt_tokens": "x"}}', b"[" * 9999):
        assert answers.of_body(body, keep=True) == answers.NOTHING
