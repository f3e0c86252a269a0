"""One row of somebody's data → one `Example`. It knows the shapes rows come in, and nothing about files.

    {"messages": […], "completion": …}           adapters.Example, as a gateway exports it
    {"messages": [… , {"role": "assistant"}]}    a chat: its last turn, the assistant's, is the completion
    {"prompt": …, "completion": …}               text, or lists of messages
    {"instruction": …, "input": …, "output": …}  input may be absent or empty

Beside these: "system" (unless the chat brings one), "unit", "weight", "label"; other keys are nobody's business here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from adapters.examples import Example

SHAPES = "messages · prompt and completion · instruction, input and output · adapters.Example"
_CARRIED = ("unit", "weight", "label", "alias", "variant")


class BadRow(ValueError):
    """Why a row is none; the caller knows where it stood."""


def example_of(row: Mapping[str, Any], *, system: str | None = None) -> Example:
    """The row as an Example of kind "seed" (or "label", if it has one). Raises `BadRow`."""
    if "messages" in row and ("completion" in row or "kind" in row):
        return _checked(dict(row))
    messages, completion = _parts(row)
    if not completion.strip():
        raise BadRow("the completion is empty")
    prompt = row.get("system") or system
    if prompt is not None and messages[:1] and messages[0].get("role") != "system":
        messages = [{"role": "system", "content": _text(prompt, "system")}, *messages]
    carried = {key: row[key] for key in _CARRIED if row.get(key) not in (None, "")}
    kind = "label" if "label" in carried else "seed"
    return _checked({"messages": messages, "completion": completion, "kind": kind, **carried})


def _parts(row: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    if "messages" in row:
        return _last_turn(row["messages"])
    if "prompt" in row and "completion" in row:
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(completion, list):
            turns, completion = _last_turn(completion)
            if turns:
                raise BadRow("the completion holds more than one turn")
        return _chat(prompt), _text(completion, "completion")
    if "instruction" in row and "output" in row:
        asked = _text(row["instruction"], "instruction")
        given = _text(row.get("input") or "", "input")
        return _chat(f"{asked}\n\n{given}" if given else asked), _text(row["output"], "output")
    found = ", ".join(sorted(map(str, row))[:8]) or "nothing"
    raise BadRow(f"its keys ({found[:120]}) make no row; known shapes are {SHAPES}")


def _chat(prompt: Any) -> list[dict[str, Any]]:
    if isinstance(prompt, list):
        if not prompt or not all(isinstance(message, Mapping) for message in prompt):
            raise BadRow("the prompt is a list, but not of messages")
        return [dict(message) for message in prompt]
    text = _text(prompt, "prompt")
    if not text.strip():
        raise BadRow("the prompt is empty")
    return [{"role": "user", "content": text}]


def _last_turn(messages: Any) -> tuple[list[dict[str, Any]], str]:
    if not isinstance(messages, list) or not messages or not all(isinstance(m, Mapping) for m in messages):
        raise BadRow("messages is not a list of messages")
    last = messages[-1]
    if last.get("role") != "assistant":
        raise BadRow(
            f"the last message is from {str(last.get('role'))[:40]!r}; the assistant's answer must be the last"
        )
    return [dict(message) for message in messages[:-1]], _text(last.get("content"), "content of the answer")


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"the {what} is not text")
    return value


def _checked(fields: dict[str, Any]) -> Example:
    try:
        example = Example.model_validate(fields)
        # A half of a surrogate pair passes every check of a str, and then no tokenizer or file takes it.
        example.to_json().encode("utf-8")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:80]
        raise BadRow(f"{key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ')}") from None
    except UnicodeEncodeError:
        raise BadRow("it holds half of a character (a lone surrogate)") from None
    return example
