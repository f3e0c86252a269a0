"""TensorZero's rows: an inference or a datapoint, and what was said of it. It knows nothing about Examples or files.

    {"input": {"system": …, "messages": […]}, "output": […] or {"raw": …}}   ChatInference, JsonInference, datapoints
    … "dispreferred_outputs": […]                                            pairs: the output was preferred over each
    … "metric_name": …, "value": true or 4.5                                 joined with Boolean- or FloatMetricFeedback
    … "value": "[…]" and no metric_name                                      joined with DemonstrationFeedback

`input`, `output` and `value` may be JSON in a string, as ClickHouse exports them. The user is tags.user_id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters import strictjson
from trainer.data.turns import TOOL_CALL, BadRow, text

USED = frozenset({"input", "output", "dispreferred_outputs", "metric_name", "value", "tool_params", "tags"})
USED |= {"id", "inference_id", "function_name", "variant_name", "feedback_id"}


@dataclass(frozen=True, slots=True)
class Logged:
    """`answers` are fields of Examples: completion, kind, and label or rejected."""

    messages: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    about: dict[str, Any]
    left: list[str] = field(default_factory=list)
    has_tools: bool = False


def asked(value: Any) -> Mapping[str, Any] | None:
    """The input of an inference, if it is one."""
    if isinstance(value, str) and value.startswith("{") and '"messages"' in value:
        try:
            value = strictjson.parse(value)
        except ValueError:
            return None
    return value if isinstance(value, Mapping) and "messages" in value else None


def read(row: Mapping[str, Any], given: Mapping[str, Any], *, good_from: float | None) -> Logged:
    """One inference, with the feedback beside it. Raises `BadRow`."""
    tags = row.get("tags")
    user = tags.get("user_id") if isinstance(tags, Mapping) else None
    about = {"unit": user if isinstance(user, str) and user else None}
    about |= {name: _name(row, key) for name, key in (("alias", "function_name"), ("variant", "variant_name"))}
    about["inference_id"] = _name(row, "inference_id") or _name(row, "id")
    params = _parsed(row.get("tool_params")) or {}
    if isinstance(params, Mapping) and any(params.get(key) for key in ("tools_available", "additional_tools")):
        return Logged([], [], about, has_tools=True)
    messages = _messages(given)
    output = _answer(row["output"])
    if output is None:
        return Logged(messages, [], about, [TOOL_CALL])
    if row.get("dispreferred_outputs"):
        worse = [_answer(other) for other in row["dispreferred_outputs"]]
        pairs = [
            {"completion": output, "kind": "preference", "rejected": other} for other in worse if other is not None
        ]
        return Logged(messages, pairs, about, [TOOL_CALL] * worse.count(None))
    if "value" not in row:
        return Logged(messages, [{"completion": output, "kind": "seed"}], about)
    if row.get("metric_name") not in (None, "", "demonstration"):
        label = judged(row["value"], good_from)
        return Logged(messages, [{"completion": output, "kind": "label", "label": label}], about)
    ideal = _answer(row["value"])
    if ideal is None:
        return Logged(messages, [], about, [TOOL_CALL])
    answers = [{"completion": ideal, "kind": "demonstration"}]
    if output != ideal and output.strip():
        answers.append({"completion": ideal, "kind": "preference", "rejected": output})
    return Logged(messages, answers, about)


def judged(value: Any, good_from: float | None) -> Any:
    """A judgement as a label: a boolean is one, a number is good from `good_from` on. Others are left as they are."""
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if isinstance(value, bool) or (good_from is None and value in (0, 1)):
        return bool(value)
    try:
        number = float(value) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        number = None
    if number is None:
        return value
    if good_from is None:
        raise BadRow(f"its label is a number ({number:g}); say from which on it is good: data.good_from")
    return number >= good_from


def _name(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    return value if isinstance(value, str) and value else None


def _parsed(value: Any) -> Any:
    """A value that may be JSON in a string."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return strictjson.parse(value)
        except ValueError:
            return value
    return value


def _messages(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    system, listed = given.get("system"), given["messages"]
    if not isinstance(listed, list) or not listed or not all(isinstance(m, Mapping) for m in listed):
        raise BadRow("input.messages is not a list of messages")
    if isinstance(system, Mapping):
        raise BadRow("its system prompt is the arguments of a template; export the rendered text")
    found: list[dict[str, Any]] = [{"role": "system", "content": text(system, "system")}] if system else []
    for message in listed:
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        found += _turn(message.get("role"), blocks)
    return found


def _turn(role: Any, blocks: Any) -> list[dict[str, Any]]:
    """The messages a turn makes: results of tools are turns of their own."""
    if not isinstance(blocks, list) or not all(isinstance(block, Mapping) for block in blocks):
        raise BadRow("the content of a message is no list of blocks")
    said, calls, results = [], [], []
    for block in blocks:
        kind = block.get("type")
        if kind == "tool_call":
            arguments = block.get("arguments", block.get("raw_arguments"))
            arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
            calls.append({"id": block.get("id"), "type": "function"})
            calls[-1]["function"] = {"name": block.get("name"), "arguments": arguments}
        elif kind == "tool_result":
            results.append({"role": "tool", "tool_call_id": block.get("id"), "content": block.get("result")})
        elif kind != "thought":
            said.append(_said(block))
    turn = (
        [{"role": role, "content": "\n".join(said)} | ({"tool_calls": calls} if calls else {})] if said or calls else []
    )
    return results + turn


def _said(block: Mapping[str, Any]) -> str:
    if block.get("type") not in ("text", "raw_text"):
        raise BadRow(f"a block of type {str(block.get('type'))[:40]!r} is no text")
    words = block.get("text", block.get("value"))
    if not isinstance(words, str):
        raise BadRow("its text is the arguments of a template; export the rendered text")
    return words


def _answer(output: Any) -> str | None:
    """The text of an output; None if it is a tool call. A JSON function's answer is what it wrote."""
    output = _parsed(output)
    if isinstance(output, str):
        return output
    if isinstance(output, Mapping):
        if isinstance(output.get("raw"), str):
            return str(output["raw"])
        raise BadRow("its output is an object without raw")
    if not isinstance(output, list) or not all(isinstance(block, Mapping) for block in output):
        raise BadRow("its output is neither text nor a list of blocks")
    if any(block.get("type") == "tool_call" for block in output):
        return None
    return "\n".join(_said(block) for block in output if block.get("type") != "thought")
