"""What TensorZero's users send to be answered, their `input`, as the messages of a chat completion.

Their content comes in blocks: text, tools' calls and results, files, thoughts. What needs a template is refused: the
template would be in their config file. Media travels inline or not at all. It knows no other field.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import InvalidRequest
from gateway.serving.checks import (
    Check,
    array,
    missing,
    one_of,
    rebuilt,
    sized,
    text,
    unsupported,
    wrong_type,
    wrong_value,
)
from gateway.serving.messages import MOST_MESSAGES, MOST_TEXT

TEMPLATES = "The gateway has no templates: render the prompt in your own code and send it as text."
_text, _label = text(MOST_TEXT), text(256, least=1)
_encode = msgspec.json.Encoder().encode


def chat_of_input(name: str, value: Any) -> list[dict[str, Any]]:
    """The messages of a chat completion, still to be checked as such."""
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    for key in value:
        if key not in ("system", "messages"):
            raise unsupported(f"{name}.{key[:64]}", "Known are 'system' and 'messages'.")
    chat: list[dict[str, Any]] = []
    system = value.get("system")
    if type(system) is dict:
        raise unsupported(f"{name}.system", TEMPLATES)
    if system is not None:
        chat.append({"role": "system", "content": _text(f"{name}.system", system)})
    given = value.get("messages") or []
    sized(f"{name}.messages", given, MOST_MESSAGES)
    for index, message in enumerate(given):
        chat += _message(f"{name}.messages[{index}]", message)
    if not chat:
        raise missing(f"{name}.messages")
    return chat


def _message(name: str, value: Any) -> list[dict[str, Any]]:
    """One of theirs as chat messages: a tool's result is a message of its own."""
    said = rebuilt(name, value, _MESSAGE, required=("role", "content"))
    role, content = said["role"], said["content"]
    if type(content) is str:
        return [{"role": role, "content": content}]
    chat = [block for block in content if "role" in block]
    parts = [block for block in content if "type" in block and block["type"] != "function"]
    message: dict[str, Any] = {"role": role}
    if parts:
        message["content"] = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
    if calls := [block for block in content if block.get("type") == "function"]:
        if role != "assistant":
            raise wrong_value(f"{name}.content", "only an assistant calls tools")
        message |= {"content": message.get("content"), "tool_calls": calls}
    thoughts = [block["reasoning"] for block in content if "reasoning" in block]
    if thoughts and role == "assistant":
        message |= {"content": message.get("content", ""), "reasoning": "".join(thoughts)}
    return [*chat, message] if "content" in message else chat


def _content(name: str, value: Any) -> Any:
    if type(value) is str:
        return value
    if type(value) is dict:
        raise unsupported(name, TEMPLATES)
    return _blocks(name, value)


def _block(name: str, value: Any) -> dict[str, Any]:
    """A block as a part of a chat message, as a tool's call, as a message with a tool's result, or as reasoning."""
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    kind = value.get("type")
    if kind == "template" or (kind == "text" and value.get("arguments") is not None):
        raise unsupported(name, TEMPLATES)
    shape = _BLOCKS.get(kind) if type(kind) is str else None
    if shape is None:
        raise wrong_value(f"{name}.type", "expected one of " + ", ".join(f"'{one}'" for one in _BLOCKS))
    block = rebuilt(name, value, shape[0], required=shape[1])
    if kind == "tool_call":
        return _call(name, block)
    if kind == "tool_result":
        return {"role": "tool", "tool_call_id": block["id"], "content": block["result"]}
    if kind == "thought":
        return {"reasoning": block.get("text", "")}
    if kind in ("file", "image"):
        return _file(name, block)
    return {"type": "text", "text": block.get("text", block.get("value"))}


def _call(name: str, block: dict[str, Any]) -> dict[str, Any]:
    """Their answers name a tool and its arguments twice: as the model wrote them and, if they were valid, as read."""
    tool = block.get("raw_name", block.get("name"))
    arguments = block.get("raw_arguments", block.get("arguments"))
    if tool is None or arguments is None:
        raise missing(f"{name}.name" if tool is None else f"{name}.arguments")
    called = {"name": tool, "arguments": arguments if type(arguments) is str else _encode(arguments).decode()}
    return {"type": "function", "id": block["id"], "function": called}


def _file(name: str, block: dict[str, Any]) -> dict[str, Any]:
    if "data" not in block or "mime_type" not in block:
        raise InvalidRequest(
            f"Invalid value for '{name}': remote media is not fetched.",
            remedy="Send the file inline, as 'mime_type' and base64 'data'.",
            param=name,
            code="invalid_image_url",
        )
    kind, data = block["mime_type"], block["data"]
    if kind in _SOUNDS:
        return {"type": "input_audio", "input_audio": {"data": data, "format": _SOUNDS[kind]}}
    if not kind.startswith("image/"):
        raise wrong_value(f"{name}.mime_type", "expected an image, or audio as wav or mp3")
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def _arguments(name: str, value: Any) -> Any:
    if type(value) not in (str, dict):
        raise wrong_type(name, "an object", value)
    return value


_blocks = array(_block, 1024, least=1)
_SOUNDS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_FILE: dict[str, Check] = {"mime_type": text(64), "data": _text}
_BLOCKS: dict[str, tuple[dict[str, Check], tuple[str, ...]]] = {
    "text": ({"text": _text}, ("text",)),
    "raw_text": ({"value": _text}, ("value",)),
    "tool_call": (
        {"id": _label, "name": _label, "raw_name": _label, "arguments": _arguments, "raw_arguments": _text},
        ("id",),
    ),
    "tool_result": ({"id": _label, "name": _label, "result": _text}, ("id", "result")),
    "file": (_FILE, ()),
    "image": (_FILE, ()),
    "thought": ({"text": _text}, ()),
}
_MESSAGE: dict[str, Check] = {"role": one_of("assistant", "user"), "content": _content}
