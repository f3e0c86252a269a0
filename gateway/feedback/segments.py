"""Which parts of an experiment's traffic a unit belongs to, as its first exposure tells. Pure, and knows no SQL.

    prompt:short …   by the tokens of the prompt; left out where they were not counted
    language:de      what the request's `metadata` says, or what its stored prompt is written in; "unknown" where that
                     cannot be told, left out where there is nothing to tell it from
    tag:plan=pro     each further entry of the request's `metadata`

A tag can be anything, a user's number even. So an experiment tells few of them apart: whoever comes later is "other".
Which they are is remembered with the experiment, so that a unit belongs to the same parts whenever it is worked out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

SHORT, LONG = 200, 2000
"""Tokens: a prompt below the first is short, from the second on long."""

TAG_KEYS, TAG_VALUES, LANGUAGES = 5, 20, 20
"""Of one experiment; the values are those of all its keys together."""

LANGUAGE = "language"
LETTERS = 500
"""Of the user's last message are read."""
FEWEST = 12
"""Bytes of letters, in UTF-8, below which no language is told."""
SURE = 0.6
"""The identifier's own probability, below which it is as good as a guess."""

_CODE = re.compile(r"([a-z]{2,3})(?:[-_].*)?\Z")


class Words:
    """The languages and tags that one experiment tells apart; `new` are those that came since they were read."""

    def __init__(self, known: Iterable[tuple[str, str]] = ()) -> None:
        self._known = set(known)
        self.new: list[tuple[str, str]] = []

    def language(self, code: str) -> str:
        """`code`, or "other"."""
        languages = sum(key == LANGUAGE for key, _ in self._known)
        return code if self._admits(LANGUAGE, code, room=languages < LANGUAGES) else "other"

    def tag(self, key: str, value: str) -> str:
        """`key=value`, `key=other`, or "other"."""
        tags = [one for one in self._known if one[0] != LANGUAGE]
        keys = {known for known, _ in tags}
        if key not in keys and len(keys) >= TAG_KEYS:
            return "other"
        return f"{key}={value}" if self._admits(key, value, room=len(tags) < TAG_VALUES) else f"{key}=other"

    def _admits(self, key: str, value: str, *, room: bool) -> bool:
        if (key, value) in self._known:
            return True
        if room:
            self._known.add((key, value))
            self.new.append((key, value))
        return room


def segments(words: Words, *, input_tokens: int | None, params: str, messages: str | None) -> tuple[str, ...]:
    """Of a unit whose first request had these parameters and this chat (both JSON; None: it is not kept)."""
    found = []
    if input_tokens is not None:
        found.append(f"prompt:{'short' if input_tokens < SHORT else 'medium' if input_tokens < LONG else 'long'}")
    labels = json.loads(params).get("metadata")
    labels = {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
    code = _told(labels.pop(LANGUAGE, None)) or (None if messages is None else _written_in(_last_words(messages)))
    if code is not None:
        found.append(f"language:{code if code == 'unknown' else words.language(code)}")
    found += (f"tag:{words.tag(key, value)}" for key, value in sorted(labels.items()))
    return tuple(dict.fromkeys(found))


def _told(label: str | None) -> str | None:
    code = _CODE.match(label.lower()) if label else None
    return code[1] if code else None


def _last_words(messages: str) -> str:
    """The text of the user's last message."""
    chat: list[dict[str, Any]] = json.loads(messages)
    content = next((one.get("content") for one in reversed(chat) if one.get("role") == "user"), None)
    if isinstance(content, list):
        content = " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")[:LETTERS]


def _written_in(text: str) -> str:
    if len("".join(filter(str.isalpha, text)).encode("utf-8", "replace")) < FEWEST:
        return "unknown"
    code, sure = _identifier().classify(text)
    return str(code) if sure >= SURE else "unknown"


@cache
def _identifier() -> Any:
    # Only an experiment with kept prompts needs it.
    from py3langid.langid import (  # type: ignore[import-untyped]  # published without types
        MODEL_FILE,
        LanguageIdentifier,
    )

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
