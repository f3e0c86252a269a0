"""What the fake engine says: pure functions from a model's word and a prompt to tokens, logprobs and usage.

The same model and prompt always give the same answer; different weights give different words in every token, so that a
stream which changed its weights half-way would show. It knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_SYLLABLES = (
    "am",
    "bir",
    "ce",
    "del",
    "em",
    "fjo",
    "gro",
    "hea",
    "in",
    "jet",
    "kno",
    "lar",
    "ma",
    "nor",
    "oce",
    "pear",
)
_PIECES = re.compile(r"\s*\S+|\s+")


def word_of(weights: bytes) -> str:
    """The stable word of some weights, such as `jetnor3f9a`."""
    digest = hashlib.sha256(weights).digest()
    return _SYLLABLES[digest[0] % 16] + _SYLLABLES[digest[0] // 16] + digest[1:3].hex()


@dataclass(frozen=True, slots=True)
class Voice:
    """A model as its answers show it: the name it says first, and its word."""

    name: str
    word: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One finished answer, cut into tokens. `tool` is the name of the function it calls, if it calls one."""

    index: int
    tokens: tuple[str, ...]
    finish: str
    stop_reason: str | None = None
    tool: str | None = None
    offset: int = 0

    @property
    def text(self) -> str:
        return "".join(self.tokens)


@lru_cache(maxsize=2048)  # a load test asks the same thing again and again
def say(voice: Voice, prompt: str, *, index: int, tokens: int) -> str:
    """`acme/support@7 re:1f3a jetnor3f9a jetnor3f9a …`, `tokens` words long (at least three)."""
    variant = f"#{index}" if index else ""
    mark = hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:8]
    return " ".join([voice.name, f"re:{mark}{variant}", *[voice.word] * max(1, tokens - 2)])


@lru_cache(maxsize=2048)
def choose(text: str, *, index: int, limit: int, stop: tuple[str, ...], tool: str | None = None) -> Choice:
    """End `text` at the first stop string or after `limit` tokens, whichever comes first."""
    hits = sorted((position, string) for string in stop if string and (position := text.find(string)) >= 0)
    stopped = hits[0][1] if hits else None
    if hits:
        text = text[: hits[0][0]]
    tokens = tuple(_PIECES.findall(text))
    if len(tokens) > limit:
        return Choice(index, tokens[:limit], "length", None, tool)
    return Choice(index, tokens, "stop", stopped, tool)


def ranked(voice: Voice, token: str, position: int, count: int) -> list[tuple[str, float]]:
    """The likeliest tokens at a position with their log-probabilities, the chosen one first; 1 ≤ `count` ≤ 21."""
    digest = hashlib.sha256(f"{voice.word}:{token}:{position}".encode()).digest()
    first = -0.01 - digest[0] / 512
    others = [(f" {_SYLLABLES[digest[k] % 16]}{k}", first - 1 - k - digest[k + 1] / 1024) for k in range(1, count)]
    return [(token, round(first, 6)), *[(text, round(value, 6)) for text, value in others]]


def prompt_logprobs(voice: Voice, tokens: Sequence[int], count: int) -> list[dict[str, Any] | None]:
    """What vLLM tells of a prompt: for each position but the first the token's own log-probability, and `count` others.

    They depend on the weights and on the token, so that two versions differ on every prompt.
    """
    told: list[dict[str, Any] | None] = [None]
    for position, token in enumerate(tokens[1:], 1):
        likely = ranked(voice, str(token), position, 1 + count)
        ids = [token, *(token + place for place in range(1, 1 + count))]
        told.append(
            {
                str(one): {"logprob": value, "rank": rank, "decoded_token": text}
                for rank, (one, (text, value)) in enumerate(zip(ids, likely, strict=True), 1)
            }
        )
    return told


def token_ids(text: str) -> list[int]:
    """A token for each word, by its first three bytes."""
    return [int.from_bytes(word.encode()[:3], "big") for word in text.split()]


def instance(schema: Mapping[str, Any], word: str) -> Any:
    """A small value that fits a JSON schema (the usual keywords; no references)."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        return {name: instance(inner, word) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema.get("items", {}), word)]
    return {"integer": 1, "number": 0.5, "boolean": True, "null": None}.get(str(kind), word)


def json_answer(voice: Voice, prompt: str, response_format: Mapping[str, Any]) -> str:
    """The answer to a request with `response_format`: an instance of its schema, or an object of our own."""
    given = response_format.get("json_schema") or {}
    schema = given.get("schema") if isinstance(given, Mapping) else None
    if isinstance(schema, Mapping):
        return json.dumps(instance(schema, voice.word))
    return json.dumps({"model": voice.name, "answer": say(voice, prompt, index=0, tokens=3)})


def prompt_of(messages: Sequence[Any]) -> str:
    """The text of a conversation."""
    lines = []
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, list):
            content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
        lines.append(content if isinstance(content, str) else "")
    return "\n".join(lines)


def count_tokens(text: str) -> int:
    return len(text.split())
