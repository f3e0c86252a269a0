"""The plain chat, which most requests are: texts, and a few numbers within bounds, read and checked in one pass.

The decoder checks what the tables in fields.py would check one by one, in half of the time. Whatever it does not take
goes the long way, which finds the words for what is wrong, if anything is. It knows nothing of what a field means.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required, TypedDict

import msgspec
from msgspec import Meta

from gateway.serving.fields import MOST_TOKENS
from gateway.serving.messages import MOST_MESSAGES

Label = Annotated[str, Meta(max_length=512)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Tokens = Annotated[int, Meta(ge=1, le=MOST_TOKENS)]


class _Said(TypedDict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _Chat(TypedDict, total=False):
    model: Required[Annotated[str, Meta(max_length=256)]]
    messages: Required[Annotated[list[_Said], Meta(min_length=1, max_length=MOST_MESSAGES)]]
    max_tokens: Tokens
    max_completion_tokens: Tokens
    temperature: Annotated[float, Meta(ge=0, le=2)]
    top_p: Annotated[float, Meta(gt=0, le=1)]
    presence_penalty: Penalty
    frequency_penalty: Penalty
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    stream: bool
    user: Label
    safety_identifier: Label
    prompt_cache_key: Label


_read = msgspec.json.Decoder(_Chat).decode
_encode = msgspec.json.Encoder().encode


def plain_chat(raw: bytes) -> dict[str, Any] | None:
    """A plain chat's fields; None for any other body, good or bad."""
    try:
        fields: Any = _read(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    # The decoder passes over what it does not know, and takes the last of two equal keys: then quotes are missing.
    # (Only `\u0022` is a quote that is not written as one.)
    if raw.count(b'"') != _encode(fields).count(b'"') or b"\\u" in raw:
        return None
    return fields  # type: ignore[no-any-return]  # a TypedDict is a dict
