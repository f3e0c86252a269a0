"""Builders: an answer, and what was said of it. Time goes on by a second with each id."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.judgements import Judged, Other, Said

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def thumb(number: int, up: bool, **more: Any) -> Said:
    return said(number, "boolean", up, **{"metric": "helpful", **more})


def stars(number: int, value: float, **more: Any) -> Said:
    return said(number, "float", value, **{"metric": "stars", **more})


def ideal(number: int, text: str, **more: Any) -> Said:
    return said(number, "demonstration", text, **{"metric": "ideal", **more})


def better_than(number: int, answer: str | None, **more: Any) -> Said:
    over = Other(inference_id=f"other-{number}", answer=answer, same_prompt=more.pop("same_prompt", True))
    return said(number, "preference", over.inference_id, **{"metric": "better", "over": over, **more})


def said(number: int, kind: Any, value: bool | float | str, **more: Any) -> Said:
    return Said(**{"id": f"f{number}", "kind": kind, "value": value, "created_at": at(1000 + number), **more})


def answered(number: int, *feedback: Said, **more: Any) -> Judged:
    """Answer `number`, by a user of that number, to a prompt of that number."""
    fields = {
        "inference_id": f"i{number}",
        "created_at": at(number),
        "messages": [{"role": "user", "content": f"question {number}"}],
        "answer": f"answer {number}",
        "complete": True,
        "alias": "support",
        "variant": "base",
        "adapter": "base",
        "propensity": 1.0,
        "unit": f"u{number}",
        "feedback": list(feedback),
    }
    if "asks" in more:
        fields["messages"] = [{"role": "user", "content": more.pop("asks")}]
    return Judged(**{**fields, **more})
