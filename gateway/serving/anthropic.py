"""What `/v1/messages`, Anthropic's API as vLLM serves it, takes: its allow-list, and the chat that is remembered.

Media travels inline or not at all; tools that Anthropic runs itself are not there to be run.
"""

from __future__ import annotations

import json
from typing import Any

from gateway.errors import InvalidRequest
from gateway.serving.checks import (
    Check,
    array,
    checked_and_dropped,
    dropped,
    flag,
    integer,
    one_of,
    rebuilt,
    refused,
    text,
    unsupported,
    wrong_type,
    wrong_value,
)
from gateway.serving.fields import MOST_TOKENS, SAMPLING, template_kwargs
from gateway.serving.messages import MOST_MESSAGES, MOST_TEXT
from gateway.serving.schemas import function_name, parameters, schema

_HOSTED = "The engine runs no tools: offer your own, with a name and an input_schema."
_text = text(MOST_TEXT)


def complete(fields: dict[str, Any], stream: bool) -> bool:
    """The rules that take two fields. Usage comes with every stream."""
    thinking = fields.get("thinking")
    if thinking is not None and thinking.get("budget_tokens", 0) >= fields["max_tokens"]:
        raise wrong_value("thinking.budget_tokens", "expected less than max_tokens")
    choice = fields.get("tool_choice")
    if choice is not None and "tools" not in fields:
        if choice["type"] not in ("none", "auto"):
            raise wrong_value("tool_choice", "only allowed when 'tools' are specified")
        del fields["tool_choice"]
    elif choice is not None and choice["type"] in ("any", "tool"):
        for index, tool in enumerate(fields["tools"]):
            schema(f"tools[{index}].input_schema", tool["input_schema"])
    return True


def user(body: dict[str, Any]) -> str | None:
    metadata = body.get("metadata")
    return (metadata.get("user_id") or None) if metadata is not None else None


def most_tokens(fields: dict[str, Any]) -> int:
    return int(fields["max_tokens"])


def asked(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """The system prompt and the messages as a chat; thinking is left out."""
    told: list[dict[str, Any]] = []
    if "system" in fields:
        told.append({"role": "system", "content": _as_chat(fields["system"])})
    for message in fields["messages"]:
        role, content = message["role"], message["content"]
        if type(content) is str:
            told.append({"role": role, "content": content})
            continue
        for block in content:
            if block["type"] == "tool_result":
                answer = {"role": "tool", "tool_call_id": block["tool_use_id"]}
                told.append({**answer, "content": _as_chat(block.get("content", ""))})
        calls = [_as_call(block) for block in content if block["type"] == "tool_use"]
        said = [block for block in content if block["type"] in ("text", "image")]
        if calls:
            told.append({"role": role, "content": _as_chat(said) if said else None, "tool_calls": calls})
        elif said:
            told.append({"role": role, "content": _as_chat(said)})
    return told


def _as_call(block: dict[str, Any]) -> dict[str, Any]:
    """Its arguments as the engine writes them into the prompt, to the space."""
    called = {"name": block["name"], "arguments": json.dumps(block["input"])}
    return {"id": block["id"], "type": "function", "function": called}


def _as_chat(content: Any) -> Any:
    if type(content) is str:
        return content
    if len(content) == 1 and content[0]["type"] == "text":
        return content[0]["text"]
    return [
        {"type": "text", "text": block["text"]} if block["type"] == "text" else _as_image(block["source"])
        for block in content
    ]


def _as_image(source: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:{source['media_type']};base64,{source['data']}"}}


_Shapes = dict[str, tuple[dict[str, Check], tuple[str, ...]]]
"""By type: the fields of a block, and those it needs."""


def _blocks(known: _Shapes) -> Check:
    """Text, or a list of blocks of the known kinds."""

    def block(name: str, value: Any) -> dict[str, Any]:
        kind = value.get("type") if type(value) is dict else None
        shape = known.get(kind) if type(kind) is str else None
        if shape is None:
            raise wrong_value(f"{name}.type", "expected one of " + ", ".join(f"'{one}'" for one in known))
        fields, required = shape
        return {"type": kind, **rebuilt(name, value, fields, required=required)}

    blocks = array(block, 4096)

    def check(name: str, value: Any) -> Any:
        if type(value) is str:
            return value
        if type(value) is not list:
            raise wrong_type(name, "a string or an array", value)
        return blocks(name, value)

    return check


def _source(name: str, value: Any) -> dict[str, Any]:
    if type(value) is dict and value.get("type") in ("url", "file"):
        raise InvalidRequest(
            f"Invalid value for '{name}': remote media is not fetched.",
            remedy="Send the image inline, as base64.",
            param=name,
            code="invalid_image_url",
        )
    return rebuilt(name, value, _SOURCE, required=_SOURCE)


def _object(name: str, value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    return value


def _message(name: str, value: Any) -> dict[str, Any]:
    message = rebuilt(name, value, _MESSAGE, required=("role", "content"))
    content = message["content"]
    if message["role"] == "system" and type(content) is list and any(block["type"] != "text" for block in content):
        raise wrong_value(f"{name}.content", "a system message is made of text")
    return message


def _tool(name: str, value: Any) -> dict[str, Any]:
    if type(value) is dict and value.get("type") not in (None, "custom"):
        raise unsupported(f"{name}.type", _HOSTED)
    return rebuilt(name, value, _TOOL, required=("name", "input_schema"))


def _tool_choice(name: str, value: Any) -> dict[str, Any]:
    named = type(value) is dict and value.get("type") == "tool"
    return rebuilt(name, value, _CHOICE, required=("type", "name") if named else ("type",))


def _thinking(name: str, value: Any) -> dict[str, Any]:
    enabled = type(value) is dict and value.get("type") == "enabled"
    return rebuilt(name, value, _THINKING, required=("type", "budget_tokens") if enabled else ("type",))


def _output(name: str, value: Any) -> dict[str, Any] | None:
    return rebuilt(name, value, _OUTPUT) or None


def _format(name: str, value: Any) -> dict[str, Any]:
    shape: dict[str, Check] = {"type": one_of("json_schema"), "schema": schema}
    return rebuilt(name, value, shape, required=shape)


def _metadata(name: str, value: Any) -> None:
    """Whose request it is stays here: it is the targeting key."""
    rebuilt(name, value, {"user_id": text(512)})


_SOURCE: dict[str, Check] = {
    "type": one_of("base64"),
    "media_type": one_of("image/jpeg", "image/png", "image/gif", "image/webp"),
    "data": _text,
}
_WORDS: _Shapes = {"text": ({"text": _text}, ("text",))}
_SEEN: _Shapes = {**_WORDS, "image": ({"source": _source}, ("source",))}
_SAID: _Shapes = {
    **_SEEN,
    "tool_use": ({"id": text(256), "name": text(256), "input": _object}, ("id", "name", "input")),
    "tool_result": ({"tool_use_id": text(256), "content": _blocks(_SEEN), "is_error": flag}, ("tool_use_id",)),
    "thinking": ({"thinking": _text, "signature": _text}, ("thinking",)),
    "redacted_thinking": ({"data": _text}, ("data",)),
}
_MESSAGE: dict[str, Check] = {"role": one_of("assistant", "system", "user"), "content": _blocks(_SAID)}
_TOOL: dict[str, Check] = {
    "name": function_name,
    "description": _text,
    "input_schema": parameters,
    "strict": flag,
}
_CHOICE: dict[str, Check] = {
    "type": one_of("auto", "any", "tool", "none"),
    "name": function_name,
    "disable_parallel_tool_use": flag,
}
_THINKING: dict[str, Check] = {
    "type": one_of("enabled", "disabled", "adaptive"),
    "budget_tokens": integer(1024, MOST_TOKENS),
    "display": dropped,
}
_OUTPUT: dict[str, Check] = {"effort": one_of("low", "medium", "high", "xhigh", "max"), "format": _format}

FIELDS: dict[str, Check] = {
    **{name: SAMPLING[name] for name in ("model", "temperature", "top_p", "top_k", "stream")},
    "messages": array(_message, MOST_MESSAGES, least=1),
    "max_tokens": integer(1, MOST_TOKENS),
    "system": _blocks(_WORDS),
    "stop_sequences": array(text(256, least=1), 16),
    "tools": array(_tool, 128, least=1),
    "tool_choice": _tool_choice,
    "thinking": _thinking,
    "output_config": _output,
    "chat_template_kwargs": template_kwargs,
    "metadata": _metadata,
    # Anthropic's own house:
    "cache_control": dropped,
    "service_tier": checked_and_dropped(text(64)),
    "inference_geo": dropped,
    "diagnostics": dropped,
    "user_profile_id": dropped,
    "workspace_id": dropped,
    "speed": dropped,
    "container": refused("The engine runs no code."),
    "mcp_servers": refused("The engine calls no servers: offer your own tools."),
    "context_management": refused("Send the conversation as it should be read."),
}
