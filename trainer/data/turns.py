"""The turns of a chat, as rows hold them: texts or lists of messages. It knows no shape of rows and no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TOOL_CALL = "answers that are tool calls, which no recipe learns from"


class BadRow(ValueError):
    """Why a row is none; the caller knows where it stood."""


def chat(prompt: Any) -> list[dict[str, Any]]:
    """A prompt, text or messages, as messages. Raises `BadRow`."""
    if isinstance(prompt, list):
        return turns(prompt, "prompt")
    asked = text(prompt, "prompt")
    if not asked.strip():
        raise BadRow("the prompt is empty")
    return [{"role": "user", "content": asked}]


def turns(messages: Any, what: str) -> list[dict[str, Any]]:
    """Copies of the messages of a list. Raises `BadRow` if it is none, or empty."""
    if not isinstance(messages, list) or not messages or not all(isinstance(m, Mapping) for m in messages):
        raise BadRow(f"{what} is not a list of messages")
    return [dict(message) for message in messages]


def last_turn(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """A chat that ends with the assistant's answer, as what came before and the answer's text. Raises `BadRow`."""
    last = messages[-1]
    if last.get("role") != "assistant":
        raise BadRow(
            f"the last message is from {str(last.get('role'))[:40]!r}; the assistant's answer must be the last"
        )
    return messages[:-1], answer(last)


def together(messages: list[dict[str, Any]], told: Any, what: str) -> tuple[list[dict[str, Any]], str]:
    """A prompt, and the one answer to it: text, a message, or a list of one message. Raises `BadRow`."""
    if isinstance(told, Mapping):
        told = [told]
    if not isinstance(told, list):
        return messages, text(told, what)
    if len(told) != 1:
        raise BadRow(f"the {what} holds {'more than one turn' if told else 'no turn'}")
    return messages, last_turn(turns(told, what))[1]


def answer(message: Mapping[str, Any]) -> str:
    """The text of a turn; parts of text are put together. Raises `BadRow`."""
    content = message.get("content")
    if (
        isinstance(content, list)
        and content
        and all(isinstance(p, Mapping) and p.get("type") == "text" for p in content)
    ):
        return "".join(text(part.get("text"), "content of the answer") for part in content)
    return text(content, "content of the answer")


def opened(messages: Sequence[dict[str, Any]], system: str) -> list[dict[str, Any]]:
    """The chat with a system prompt before it, unless it has one."""
    if messages[:1] and messages[0].get("role") not in ("system", "developer"):
        return [{"role": "system", "content": system}, *messages]
    return list(messages)


def text(value: Any, what: str) -> str:
    """The value, if it is text. Raises `BadRow`."""
    if not isinstance(value, str):
        raise BadRow(f"the {what} is not text")
    return value
