"""What an answer says about itself: tokens, finish reason, and the text where a tenant keeps it. Bytes in, notes out.

Parsed once, after the client has its answer, and never raised about: an engine that words its JSON otherwise costs a
note, not a request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.serving.sse import Events, array, payloads


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = None


class _Finish(msgspec.Struct):
    finish_reason: str | None = None


class _Facts(msgspec.Struct):
    choices: list[_Finish] = []
    usage: _Usage | None = None


class _Words(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    text: str | None = None
    message: _Words | None = None
    delta: _Words | None = None


class _Contents(msgspec.Struct, gc=False):
    choices: list[_Choice] = []


_facts = msgspec.json.Decoder(_Facts).decode
_anything = msgspec.json.Decoder().decode
_contents = msgspec.json.Decoder(list[_Contents]).decode


class Notes(msgspec.Struct, frozen=True):
    """Of one answer. `text` is the first choice's, and None where it was not kept whole."""

    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    text: str | None = None


NOTHING = Notes()


@dataclass(frozen=True, slots=True)
class Reading:
    """How the answers of one kind are read: `body` a whole one, `stream` what is left of a streamed one. Both may raise
    what msgspec raises; they get whether the text is to be kept.
    """

    body: Callable[[bytes, bool], Notes]
    stream: Callable[[Events, bool], Notes]

    def of_body(self, body: bytes, *, keep: bool = False) -> Notes:
        """The notes of a unary answer."""
        try:
            return self.body(body, keep)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return NOTHING

    def of_stream(self, events: Events, *, keep: bool = False) -> Notes:
        """The notes of a streamed one, as far as it came."""
        try:
            return self.stream(events, keep)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return NOTHING


def is_json(body: bytes) -> bool:
    """Whether this is one whole JSON text."""
    try:
        _anything(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    return True


def _choices(body: bytes, keep: bool) -> Notes:
    return _notes(_facts(body), _text(b"[%b]" % body) if keep else None)


def _streamed_choices(events: Events, keep: bool) -> Notes:
    last = events.last[events.last.rfind(b"\n\n", 0, -4) + 1 :]  # of a piece of many events
    reasons = [c.finish_reason for event in payloads(last) for c in _facts(event).choices if c.finish_reason]
    total = _facts(payloads(events.usage)[0]).usage if events.usage is not None else None
    text = _text(array(b"".join(events.kept))) if keep and not events.cut else None
    return _notes(_Facts([_Finish(one) for one in reasons], total), text)


def _notes(facts: _Facts, text: str | None) -> Notes:
    reason, usage = None, facts.usage
    for choice in facts.choices:
        if choice.finish_reason:
            reason = choice.finish_reason
            break
    if usage is None:
        return Notes(reason, text=text)
    return Notes(reason, usage.prompt_tokens, usage.completion_tokens, text)


def _text(bodies: bytes) -> str:
    """The first choice's, of one or more bodies in a JSON array."""
    words: list[str] = []
    for body in _contents(bodies):
        for choice in body.choices:
            if choice.index == 0:
                said = choice.message or choice.delta
                words.append((said.content if said is not None else choice.text) or "")
    return "".join(words)


CHOICES = Reading(_choices, _streamed_choices)
"""Of /v1/chat/completions and /v1/completions."""
of_body, of_stream = CHOICES.of_body, CHOICES.of_stream
