"""A chat's messages, rebuilt from what OpenAI's shape allows. It knows nothing of models or sampling.

Media travels inline (`data:` URLs) or not at all: an engine that fetches a client's URL is a hole in the network.
Keys that clients echo from an answer (`refusal`, `annotations`, `audio`, `function_call`) are left out quietly.
"""

from __future__ import annotations

from typing import Any

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

MOST_MESSAGES = 4096
MOST_TEXT = 1 << 26
"""No bound of its own: the body's size is one."""

_PLAIN = frozenset(("system", "developer", "user", "assistant"))
ROLES = _PLAIN | {"tool"}

_text = text(MOST_TEXT)


def messages(name: str, value: Any) -> list[dict[str, Any]]:
    """A non-empty list of messages. A plain one (role and text) passes as the object it is."""
    sized(name, value, MOST_MESSAGES, least=1)
    for index, message in enumerate(value):
        if not (
            type(message) is dict
            and len(message) == 2
            and type(message.get("content")) is str
            and type(message.get("role")) is str
            and message["role"] in _PLAIN
        ):
            value[index] = _message(f"{name}[{index}]", message)
    return value  # type: ignore[no-any-return]  # `sized` says that it is a list, and each item was seen


def _message(name: str, value: Any) -> dict[str, Any]:
    message = rebuilt(name, value, _MESSAGE, required=("role",))
    if "content" not in message:
        if message["role"] != "assistant":
            raise missing(f"{name}.content")
        if "tool_calls" not in message:
            raise wrong_value(f"{name}.content", "an assistant message needs content or tool_calls")
        message["content"] = None
    if message["role"] == "tool" and "tool_call_id" not in message:
        raise missing(f"{name}.tool_call_id")
    return message


def _content(name: str, value: Any) -> Any:
    if type(value) is str:
        return value
    if type(value) is not list:
        raise wrong_type(name, "a string or an array", value)
    return _parts(name, value)


def _part(name: str, value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise wrong_type(name, "an object", value)
    kind = value.get("type")
    shape = _PARTS.get(kind) if type(kind) is str else None
    if shape is None:
        raise wrong_value(f"{name}.type", "expected one of " + ", ".join(f"'{one}'" for one in _PARTS))
    return rebuilt(name, value, {"type": one_of(*_PARTS), **shape}, required=shape)


def _image(name: str, value: Any) -> dict[str, Any]:
    if type(value) is str:
        value = {"url": value}
    return rebuilt(name, value, {"url": inline_image, "detail": one_of("auto", "low", "high")}, required=("url",))


def inline_image(name: str, value: Any) -> str:
    """A `data:` URL of an image."""
    if type(value) is not str:
        raise wrong_type(name, "a string", value)
    if value[:11].lower() != "data:image/":
        raise InvalidRequest(
            f"Invalid value for '{name}': remote media is not fetched.",
            remedy="Send the image inline, as a data: URL.",
            param=name,
            code="invalid_image_url",
        )
    return value


def _audio(name: str, value: Any) -> dict[str, Any]:
    return rebuilt(name, value, {"data": _text, "format": one_of("wav", "mp3")}, required=("data", "format"))


def _call(name: str, value: Any) -> dict[str, Any]:
    return rebuilt(
        name, value, {"id": text(256), "type": one_of("function"), "function": _called}, required=("function",)
    )


def _called(name: str, value: Any) -> dict[str, Any]:
    return rebuilt(name, value, {"name": text(256), "arguments": _text}, required=("name", "arguments"))


def _no_function_call(name: str, _value: Any) -> None:
    raise unsupported(name, "Use 'tool_calls'.")


_PARTS: dict[str, dict[str, Check]] = {
    "text": {"text": _text},
    "refusal": {"refusal": _text},
    "image_url": {"image_url": _image},
    "input_audio": {"input_audio": _audio},
}
_parts = array(_part, 1024, least=1)

_MESSAGE: dict[str, Check] = {
    "role": one_of(*sorted(ROLES)),
    "content": _content,
    "name": text(256),
    "tool_calls": array(_call, 128, least=1),
    "tool_call_id": text(256),
    "reasoning": _text,
    "reasoning_content": _text,
    "function_call": _no_function_call,
}
