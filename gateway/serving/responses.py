"""What `/v1/responses` takes: its allow-list, and its input as the chat that is remembered.

vLLM keeps stored responses, background jobs and earlier answers in one memory for all clients, fetches what an input
names, and runs tools of its own: none of it is any tenant's to use. What is left is one question and its answer.
"""

from __future__ import annotations

from typing import Any

from gateway.serving.checks import (
    Check,
    array,
    checked_and_dropped,
    dropped,
    flag,
    integer,
    one_of,
    only,
    rebuilt,
    refused,
    text,
    unsupported,
    wrong_type,
    wrong_value,
)
from gateway.serving.fields import LABELS, MOST_TOKENS, SAMPLING, stream_options, template_kwargs
from gateway.serving.messages import MOST_MESSAGES, MOST_TEXT, inline_image
from gateway.serving.schemas import function_name, json_schema, parameters, schema

_STATELESS = "Answers are not stored: send the whole conversation in 'input'."
_HOSTED = "The engine runs no tools: offer your own, of the type 'function'."
_text = text(MOST_TEXT)
_id = checked_and_dropped(text(256))
_status = one_of("in_progress", "completed", "incomplete")


def complete(fields: dict[str, Any], stream: bool) -> bool:
    """The rules that take two fields. Usage comes with the last event of every stream."""
    fields["store"] = False
    if "text" in fields and "structured_outputs" in fields:
        raise wrong_value("structured_outputs", "not allowed together with 'text.format'")
    choice = fields.get("tool_choice")
    if choice is None or choice == "auto":
        return True
    if "tools" not in fields:
        if choice != "none":
            raise wrong_value("tool_choice", "only allowed when 'tools' are specified")
        del fields["tool_choice"]
    elif choice != "none":
        for index, tool in enumerate(fields["tools"]):
            schema(f"tools[{index}].parameters", tool["parameters"])
    return True


def most_tokens(fields: dict[str, Any]) -> int | None:
    return fields.get("max_output_tokens")


def asked(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """The instructions and the input as chat messages; reasoning is left out."""
    told: list[dict[str, Any]] = []
    if "instructions" in fields:
        told.append({"role": "system", "content": fields["instructions"]})
    given = fields["input"]
    if type(given) is str:
        return [*told, {"role": "user", "content": given}]
    for item in given:
        kind = item["type"]
        if kind == "message":
            told.append({"role": item["role"], "content": _as_chat(item["content"])})
        elif kind == "function_call":
            called = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": called}
            if told and "tool_calls" in told[-1]:
                told[-1]["tool_calls"].append(call)
            else:
                told.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            told.append({"role": "tool", "tool_call_id": item["call_id"], "content": _as_chat(item["output"])})
    return told


def _as_chat(content: Any) -> Any:
    if type(content) is str:
        return content
    if len(content) == 1 and "text" in content[0]:
        return content[0]["text"]
    return [
        {"type": "image_url", "image_url": {"url": part["image_url"]}}
        if "image_url" in part
        else {"type": "text", "text": part.get("text", part.get("refusal"))}
        for part in content
    ]


def _input(name: str, value: Any) -> Any:
    if type(value) is str:
        return value
    if type(value) is not list:
        raise wrong_type(name, "a string or an array", value)
    return _items(name, value)


def _item(name: str, value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    kind = value.get("type", "message")
    shape = _ITEMS.get(kind) if type(kind) is str else None
    if shape is None:
        raise unsupported(f"{name}.type", "Known are " + ", ".join(f"'{one}'" for one in _ITEMS) + ".")
    fields, required = shape
    return {"type": kind, **rebuilt(name, value, fields, required=required)}


def _content(name: str, value: Any) -> Any:
    if type(value) is str:
        return value
    if type(value) is not list:
        raise wrong_type(name, "a string or an array", value)
    return _parts(name, value)


def _part(name: str, value: Any) -> dict[str, Any]:
    kind = value.get("type") if type(value) is dict else None
    shape = _PARTS.get(kind) if type(kind) is str else None
    if shape is None:
        raise wrong_value(f"{name}.type", "expected one of " + ", ".join(f"'{one}'" for one in _PARTS))
    fields, required = shape
    return {"type": kind, **rebuilt(name, value, fields, required=required)}


def _tool(name: str, value: Any) -> dict[str, Any]:
    if type(value) is dict and value.get("type") not in (None, "function"):
        raise unsupported(f"{name}.type", _HOSTED)
    tool = rebuilt(name, value, _FUNCTION, required=("type", "name"))
    tool.setdefault("parameters", {"type": "object", "properties": {}})
    return tool


def _tool_choice(name: str, value: Any) -> Any:
    if type(value) is str:
        return _choice_word(name, value)
    if type(value) is dict and value.get("type") not in (None, "function"):
        raise unsupported(f"{name}.type", _HOSTED)
    return rebuilt(name, value, {"type": one_of("function"), "name": function_name}, required=("type", "name"))


def _format(name: str, value: Any) -> dict[str, Any] | None:
    kind = value.get("type") if type(value) is dict else None
    if kind == "json_schema":
        return {"type": "json_schema", **json_schema(name, value)}
    told = rebuilt(name, value, {"type": one_of("text", "json_object", "json_schema")}, required=("type",))
    return told if kind != "text" else None


def _text_options(name: str, value: Any) -> dict[str, Any] | None:
    return rebuilt(name, value, _TEXT) or None


def _reasoning(name: str, value: Any) -> dict[str, Any] | None:
    return rebuilt(name, value, _REASONING) or None


def _include(name: str, value: Any) -> list[str] | None:
    for index, one in enumerate(_included(name, value)):
        if one != "message.output_text.logprobs":
            raise unsupported(f"{name}[{index}]", "Known is 'message.output_text.logprobs'.")
    return value or None


_parts = array(lambda name, value: _part(name, value), 1024, least=1)
_items = array(_item, MOST_MESSAGES, least=1)
_included = array(text(64), 16)
_choice_word = one_of("none", "auto", "required")
_PARTS: dict[str, tuple[dict[str, Check], tuple[str, ...]]] = {
    "input_text": ({"text": _text}, ("text",)),
    "output_text": ({"text": _text}, ("text",)),
    "refusal": ({"refusal": _text}, ("refusal",)),
    "input_image": ({"image_url": inline_image, "detail": one_of("auto", "low", "high")}, ("image_url",)),
}
_MESSAGE: dict[str, Check] = {
    "role": one_of("assistant", "developer", "system", "user"),
    "content": _content,
    "status": _status,
}
_CALL: dict[str, Check] = {"call_id": text(256), "name": text(256), "arguments": _text, "status": _status}
_OUTPUT: dict[str, Check] = {"call_id": text(256), "output": _content, "status": _status}
_THOUGHT: dict[str, Check] = {
    "id": text(256),
    "summary": array(lambda name, value: rebuilt(name, value, _SUMMARY, required=_SUMMARY), 1024),
    "content": array(lambda name, value: rebuilt(name, value, _THOUGHTS, required=_THOUGHTS), 1024),
    "encrypted_content": refused("The engine gives no encrypted reasoning."),
    "status": _status,
}
_SUMMARY: dict[str, Check] = {"type": one_of("summary_text"), "text": _text}
_THOUGHTS: dict[str, Check] = {"type": one_of("reasoning_text"), "text": _text}
_ITEMS: dict[str, tuple[dict[str, Check], tuple[str, ...]]] = {
    "message": (_MESSAGE, ("role", "content")),
    "function_call": (_CALL, ("call_id", "name", "arguments")),
    "function_call_output": (_OUTPUT, ("call_id", "output")),
    "reasoning": (_THOUGHT, ("summary",)),
}
_FUNCTION: dict[str, Check] = {
    "type": one_of("function"),
    "name": function_name,
    "description": _text,
    "parameters": parameters,
    "strict": flag,
}
_TEXT: dict[str, Check] = {
    "format": _format,
    "verbosity": only("medium", "Say in the prompt how long the answer should be."),
}
_REASONING: dict[str, Check] = {
    "effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "summary": dropped,
    "generate_summary": dropped,
}

FIELDS: dict[str, Check] = {
    **SAMPLING,
    **LABELS,
    "input": _input,
    "instructions": _text,
    "max_output_tokens": integer(1, MOST_TOKENS),
    "max_tool_calls": checked_and_dropped(integer(1, MOST_TOKENS)),
    "top_logprobs": integer(0, 20),
    "include": _include,
    "include_reasoning": flag,
    "parallel_tool_calls": flag,
    "reasoning": _reasoning,
    "text": _text_options,
    "tools": array(_tool, 128),
    "tool_choice": _tool_choice,
    "chat_template_kwargs": template_kwargs,
    "truncation": one_of("auto", "disabled"),
    "stream_options": checked_and_dropped(stream_options),
    "background": only(False, "The gateway answers while you wait."),
    "previous_response_id": refused(_STATELESS),
    "conversation": refused(_STATELESS),
    "prompt": refused("Send the prompt itself, in 'instructions' and 'input'."),
    "context_management": refused(_STATELESS),
    "moderation": refused("The engine moderates nothing."),
}
