"""`/v1/embeddings`: its allow-list, and how its answers are read. An engine that generates text may not serve it."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.serving.answers import Notes, Reading
from gateway.serving.aside import Named
from gateway.serving.checks import Check, flag, integer, one_of, text
from gateway.serving.fields import LABELS, MOST_TOKENS, prompts
from gateway.serving.sse import Events

MOST_INPUTS = 2048
"""OpenAI's bound."""

FIELDS: dict[str, Check] = {
    **LABELS,
    "model": text(256),
    "input": lambda name, value: prompts(name, value, MOST_INPUTS),
    "dimensions": integer(1, 65_536),
    "encoding_format": one_of("float", "base64"),
    "truncate_prompt_tokens": integer(-1, MOST_TOKENS),
    "add_special_tokens": flag,
}


def complete(fields: dict[str, Any], stream: bool) -> bool:
    """Nothing depends on anything."""
    return False


def most_tokens(fields: dict[str, Any]) -> int:
    """Nothing is generated."""
    return 0


def asked(fields: dict[str, Any]) -> None:
    """Texts to embed are no chat, and must not become a training example."""


def events(*, wants_usage: bool, keep: int, named: Named) -> Events:
    raise AssertionError("embeddings are not streamed")  # their allow-list has no `stream`


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Embedded(msgspec.Struct):
    usage: _Usage | None = None


_embedded = msgspec.json.Decoder(_Embedded).decode


def _notes(body: bytes, keep: bool) -> Notes:
    usage = _embedded(body).usage
    return Notes(input_tokens=usage.prompt_tokens if usage is not None else None)


READING = Reading(_notes, lambda events, keep: Notes())
