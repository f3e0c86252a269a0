"""A stored chat as people read it: each message's role and its words. Whatever a client sent, text comes out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One message."""

    role: str
    text: str


def transcript(messages: Sequence[Any] | None) -> list[Line]:
    """In their order; parts that are no text are shown as JSON."""
    return [_line(one) if isinstance(one, dict) else Line("message", _json(one)) for one in messages or ()]


def clean(text: str) -> str:
    """What UTF-8 can hold: JSON can say half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def _line(message: dict[str, Any]) -> Line:
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    others = {name: value for name, value in message.items() if name not in ("role", "content") and value}
    said = [*_texts(parts), *([_json(others)] if others else [])]
    return Line(clean(str(message.get("role", "message"))), "\n".join(said))


def _texts(parts: Iterable[Any]) -> Iterable[str]:
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield clean(part["text"])
        elif isinstance(part, str):
            yield clean(part)
        elif part is not None:
            yield _json(part)


def _json(value: Any) -> str:
    return clean(json.dumps(value, ensure_ascii=False, indent=2))
