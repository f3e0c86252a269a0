"""What `/v1/responses` answers: its events, and its notes. It knows nothing of requests."""

from __future__ import annotations

import msgspec

from gateway.serving.answers import Notes, Reading
from gateway.serving.aside import Named
from gateway.serving.sse import Events, NamedEvents, payloads


class ResponseEvents(NamedEvents):
    """The stream of a response; its last event holds all of the answer and its usage."""

    __slots__ = ()

    _common = b"event: response.output_text.delta\n"
    _opens = frozenset((b"response.created", b"response.queued", b"response.in_progress"))
    _ends = frozenset((b"response.completed", b"response.incomplete"))
    _fails = frozenset((b"response.failed", b"error"))
    _counts = _ends


def events(*, wants_usage: bool, keep: int, named: Named) -> Events:
    return ResponseEvents(keep=keep)


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Item(msgspec.Struct):
    type: str = ""
    content: list[_Part] | None = None


class _Details(msgspec.Struct):
    reason: str | None = None


class _Response(msgspec.Struct):
    status: str | None = None
    incomplete_details: _Details | None = None
    output: list[_Item] = []
    usage: _Usage | None = None


class _Last(msgspec.Struct):
    response: _Response


class _Delta(msgspec.Struct):
    type: str = ""
    delta: str | None = None


_response = msgspec.json.Decoder(_Response).decode
_last = msgspec.json.Decoder(_Last).decode
_delta = msgspec.json.Decoder(_Delta).decode


def _notes(response: _Response, keep: bool) -> Notes:
    """Finish reasons are noted in the words of chat completions, so that endpoints can be compared."""
    reason = None
    if response.status == "completed":
        called = any(item.type == "function_call" for item in response.output)
        reason = "tool_calls" if called else "stop"
    elif response.status == "incomplete":
        why = response.incomplete_details.reason if response.incomplete_details is not None else None
        reason = "length" if why in (None, "max_output_tokens") else why
    usage = response.usage or _Usage()
    return Notes(reason, usage.input_tokens, usage.output_tokens, _words(response) if keep else None)


def _words(response: _Response) -> str:
    parts = [part for item in response.output if item.type == "message" for part in item.content or ()]
    return "".join(part.text or "" for part in parts if part.type == "output_text")


def _streamed(events: Events, keep: bool) -> Notes:
    keep = keep and not events.cut
    if events.usage is not None:
        return _notes(_last(payloads(events.usage)[0]).response, keep)
    if not keep:
        return Notes()
    said = [_delta(event) for event in payloads(b"".join(events.kept)) if b"response.output_text.delta" in event]
    return Notes(text="".join(one.delta or "" for one in said if one.type == "response.output_text.delta"))


READING = Reading(lambda body, keep: _notes(_response(body), keep), _streamed)
