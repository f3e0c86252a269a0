"""What `/v1/messages` answers: its events, and its notes. It knows nothing of requests.

The engine's shapes are Anthropic's, except for the id: vLLM calls a message `chatcmpl-…`, clients know it as `msg_…`.
"""

from __future__ import annotations

import msgspec

from gateway.serving.answers import Notes, Reading
from gateway.serving.aside import Named
from gateway.serving.sse import Events, NamedEvents, payloads


class MessageEvents(NamedEvents):
    """The stream of a message; it begins under the id that the client is to know."""

    __slots__ = ("_named",)

    _common = b"event: content_block_delta\n"
    _ends = frozenset((b"message_stop",))
    _fails = frozenset((b"error",))
    _counts = frozenset((b"message_start", b"message_delta"))

    def __init__(self, *, keep: int, named: Named) -> None:
        super().__init__(keep=keep)
        self._named = named

    def _worded(self, name: bytes, event: bytes) -> bytes:
        return own_id(event, self._named) if name == b"message_start" else event


def events(*, wants_usage: bool, keep: int, named: Named) -> Events:
    return MessageEvents(keep=keep, named=named)


def own_id(answer: bytes, named: Named) -> bytes:
    """The answer under our form of its id. Only the engine knows the id before: the first place is the one."""
    bare = named.id.encode()
    return answer.replace(b"chatcmpl-" + bare, b"msg_" + bare, 1)


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    @property
    def read(self) -> int | None:
        """All tokens of the prompt: Anthropic counts those from the cache apart."""
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Message(msgspec.Struct):
    stop_reason: str | None = None
    content: list[_Block] = []
    usage: _Usage | None = None


class _Delta(msgspec.Struct):
    stop_reason: str | None = None
    text: str | None = None


class _Event(msgspec.Struct):
    """Any event of a stream, as far as it is noted."""

    message: _Message | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None


_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
"""Finish reasons are noted in the words of chat completions, so that endpoints can be compared."""

_message_of = msgspec.json.Decoder(_Message).decode
_event_of = msgspec.json.Decoder(_Event).decode


def _reason(told: str | None) -> str | None:
    return _REASONS.get(told, told) if told is not None else None


def _notes(body: bytes, keep: bool) -> Notes:
    message = _message_of(body)
    usage = message.usage or _Usage()
    said = "".join(block.text or "" for block in message.content if block.type == "text") if keep else None
    return Notes(_reason(message.stop_reason), usage.read, usage.output_tokens, said)


def _streamed(events: Events, keep: bool) -> Notes:
    told = [_event_of(event) for event in payloads(events.usage or b"")]
    start = next((one.message.usage for one in told if one.message is not None and one.message.usage), _Usage())
    end = next((one for one in told if one.delta is not None), _Event())
    usage = end.usage or _Usage()
    reason = _reason(end.delta.stop_reason) if end.delta is not None else None
    read = usage.read if usage.read is not None else start.read
    said = None
    if keep and not events.cut:
        kept = [event for event in payloads(b"".join(events.kept)) if b'"text_delta"' in event]
        said = "".join(one.delta.text or "" for one in map(_event_of, kept) if one.delta is not None)
    return Notes(reason, read, usage.output_tokens, said)


READING = Reading(_notes, _streamed)
