"""The fake engine's `/v1/messages`: Anthropic's request as a chat, and vLLM 0.32's message bodies and events.

The shapes follow vllm/entrypoints/anthropic/serving.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.engine.fake_engine import Refused

if TYPE_CHECKING:
    from gateway.engine.fake_openai import Job

encode = msgspec.json.encode
_CHOICES = {"any": "required", "auto": "auto", "none": "none"}


def messages_as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """The chat request that vLLM makes of it. Raises `Refused`."""
    for field in ("messages", "max_tokens"):
        if field not in body:
            raise Refused(400, "1 validation error:\n  Field required", type="Bad Request", param=f"body.{field}")
    chat: dict[str, Any] = {name: body[name] for name in ("model", "max_tokens", "stream") if name in body}
    system: list[Any] = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    chat["messages"] = [*system, *({**one, "content": _flat(one.get("content"))} for one in body["messages"])]
    chat["stop"] = body.get("stop_sequences")
    form = (body.get("output_config") or {}).get("format")
    if form:
        chat["response_format"] = {"type": form["type"], "json_schema": {"schema": form["schema"]}}
    if body.get("tools"):
        chat["tools"] = [
            {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}}
            for tool in body["tools"]
        ]
        choice = body.get("tool_choice") or {"type": "auto"}
        named = {"type": "function", "function": {"name": choice.get("name")}}
        chat["tool_choice"] = _CHOICES.get(choice["type"], named)
    return chat


def _flat(content: Any) -> Any:
    """Blocks as parts with a text each: a tool's result is a block with a content of its own."""
    if not isinstance(content, list):
        return content
    parts: list[Any] = []
    for block in content:
        inner = block.get("content", block.get("text", ""))
        parts += inner if isinstance(inner, list) else [{"text": inner}]
    return parts


def whole_message(job: Job) -> bytes:
    """The answer in one piece."""
    told: dict[str, Any] = {"id": job.id, "type": "message", "role": "assistant", "content": [_block(job, filled=True)]}
    told |= {"model": job.model, **{name: value for name, value in _stop(job).items() if value is not None}}
    return encode(told | {"usage": _usage(job, job.tokens)})


def message_events(job: Job) -> Iterator[tuple[bytes, bool]]:
    """The events of a stream, as they are written, each with whether a token's time passes before it."""
    choice = job.choices[0]
    start: dict[str, Any] = {"id": job.id, "type": "message", "role": "assistant", "content": [], "model": job.model}
    start |= {"stop_reason": None, "stop_sequence": None, "usage": _usage(job, 0)}
    yield _event("message_start", message=start), False
    yield _event("content_block_start", content_block=_block(job, filled=False), index=0), False
    for token in choice.tokens:
        delta = {"type": "text_delta", "text": token}
        if choice.tool is not None:
            delta = {"type": "input_json_delta", "partial_json": token}
        yield _event("content_block_delta", delta=delta, index=0), True
    yield _event("content_block_stop", index=0), False
    yield _event("message_delta", delta=_stop(job), usage=_usage(job, job.tokens)), False
    yield _event("message_stop"), False


def broken_message() -> bytes:
    """What vLLM sends when the generation fails in the middle of a stream; nothing comes after it."""
    error = {"type": "internal_error", "message": "1 validation error for ChatCompletionStreamResponse"}
    return _event("error", error=error)


def _event(name: str, **told: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode({"type": name, **told}))


def _block(job: Job, *, filled: bool) -> dict[str, Any]:
    choice = job.choices[0]
    if choice.tool is None:
        return {"type": "text", "text": choice.text if filled else ""}
    given = msgspec.json.decode(choice.text) if filled else {}
    return {"type": "tool_use", "id": f"chatcmpl-tool-{job.id[-16:]}", "name": choice.tool, "input": given}


def _stop(job: Job) -> dict[str, Any]:
    choice = job.choices[0]
    if choice.finish == "length":
        return {"stop_reason": "max_tokens", "stop_sequence": None}
    if choice.tool is not None:
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if choice.stop_reason is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": choice.stop_reason}
    return {"stop_reason": "end_turn", "stop_sequence": None}


def _usage(job: Job, output: int) -> dict[str, int]:
    return {"input_tokens": job.prompt_tokens, "output_tokens": output}
