"""The fake engine's `/v1/responses`: the request as a chat, and vLLM 0.32's response bodies and events.

The shapes follow vllm/entrypoints/openai/responses/{protocol,serving,streaming_events}.py; nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.engine.fake_engine import Refused

if TYPE_CHECKING:
    from gateway.engine.fake_openai import Job

encode = msgspec.json.encode


def responses_as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """The chat request that vLLM makes of it. Raises `Refused`."""
    if "input" not in body:
        raise Refused(400, "1 validation error:\n  Field required", type="Bad Request", param="body.input")
    if body.get("previous_response_id"):
        sentence = f"Response with id '{body['previous_response_id']}' not found."
        raise Refused(404, sentence, type="invalid_request_error", param="response_id")
    given: Any = body["input"]
    items: list[Any] = given if isinstance(given, list) else [{"role": "user", "content": given}]
    told: list[Any] = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    chat: dict[str, Any] = {name: body[name] for name in ("model", "stream", "stop", "ignore_eos") if name in body}
    chat["messages"] = [*told, *({"content": item.get("content", item.get("output", ""))} for item in items)]
    chat["max_completion_tokens"] = body.get("max_output_tokens")
    form = (body.get("text") or {}).get("format") or {}
    chat["response_format"] = {"type": form.get("type"), "json_schema": {"schema": form.get("schema")}}
    chat["tools"] = [{"type": "function", "function": tool} for tool in body.get("tools") or []]
    choice = body.get("tool_choice", "auto")
    chat["tool_choice"] = choice if isinstance(choice, str) else {"function": {"name": choice.get("name")}}
    return chat


def whole_response(job: Job) -> bytes:
    """The answer in one piece."""
    return encode(_response(job, done=True))


def response_events(job: Job) -> Iterator[tuple[bytes, bool]]:
    """The events of a stream, as they are written, each with whether a token's time passes before it."""
    for number, (name, told, timed) in enumerate(_events(job)):
        told |= {"sequence_number": number, "type": name}
        yield b"event: %b\ndata: %b\n\n" % (name.encode(), encode(told)), timed


def _events(job: Job) -> Iterator[tuple[str, dict[str, Any], bool]]:
    choice, item = job.choices[0], _item(job)
    at: dict[str, Any] = {"output_index": 0, "item_id": item["id"]}
    in_text = at | {"content_index": 0}
    yield "response.created", {"response": _response(job, done=False)}, False
    yield "response.in_progress", {"response": _response(job, done=False)}, False
    yield "response.output_item.added", {"item": _item(job, filled=False), "output_index": 0}, False
    if choice.tool is not None:
        for token in choice.tokens:
            yield "response.function_call_arguments.delta", at | {"delta": token}, True
        yield "response.function_call_arguments.done", at | {"arguments": choice.text, "name": choice.tool}, False
    else:
        empty = _part("")
        yield "response.content_part.added", in_text | {"part": empty}, False
        for token in choice.tokens:
            yield "response.output_text.delta", in_text | {"delta": token, "logprobs": []}, True
        yield "response.output_text.done", in_text | {"text": choice.text, "logprobs": []}, False
        yield "response.content_part.done", in_text | {"part": _part(choice.text)}, False
    yield "response.output_item.done", {"item": item, "output_index": 0}, False
    yield "response.completed", {"response": _response(job, done=True)}, False


def _response(job: Job, *, done: bool) -> dict[str, Any]:
    asked, short = job.asked, job.choices[0].finish == "length"
    status = ("incomplete" if short else "completed") if done else "in_progress"
    told: dict[str, Any] = {"id": job.id, "created_at": job.created}
    told["incomplete_details"] = {"reason": "max_output_tokens"} if done and short else None
    told |= {"instructions": asked.get("instructions"), "metadata": None, "model": job.model, "object": "response"}
    told |= {"output": [_item(job)] if done else [], "parallel_tool_calls": asked.get("parallel_tool_calls", True)}
    told |= {"temperature": asked.get("temperature", 1.0), "tool_choice": asked.get("tool_choice", "auto")}
    told |= {"tools": asked.get("tools") or [], "top_p": asked.get("top_p", 1.0), "background": False}
    told |= {"max_output_tokens": asked.get("max_output_tokens", 4000), "max_tool_calls": None}
    told |= {"previous_response_id": None, "prompt": None, "reasoning": asked.get("reasoning"), "service_tier": "auto"}
    told |= {"status": status, "text": asked.get("text"), "top_logprobs": None, "truncation": "disabled"}
    told |= {"usage": _usage(job) if done else None, "user": None, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    return told | dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "input_messages", "output_messages"))


def _item(job: Job, *, filled: bool = True) -> dict[str, Any]:
    choice, status = job.choices[0], "completed" if filled else "in_progress"
    if choice.tool is not None:
        arguments = choice.text if filled else ""
        called: dict[str, Any] = {
            "arguments": arguments,
            "call_id": f"chatcmpl-tool-{job.id[-16:]}",
            "name": choice.tool,
        }
        called |= {"type": "function_call", "id": f"fc_{job.id[-16:]}", "status": status}
        return called | {"async": None, "caller": None, "namespace": None}
    content = [_part(choice.text)] if filled else []
    told: dict[str, Any] = {"id": f"msg_{job.id[-16:]}", "content": content, "role": "assistant"}
    return told | {"status": status, "type": "message", "phase": None}


def _part(text: str) -> dict[str, Any]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}


def _usage(job: Job) -> dict[str, Any]:
    read: dict[str, Any] = {"cached_tokens": 0, "cache_write_tokens": 0}
    written: dict[str, Any] = {"reasoning_tokens": 0, "tool_output_tokens": 0}
    return {
        "input_tokens": job.prompt_tokens,
        "input_tokens_details": read | {"input_tokens_per_turn": [], "cached_tokens_per_turn": []},
        "output_tokens": job.tokens,
        "output_tokens_details": written | {"output_tokens_per_turn": [], "tool_output_tokens_per_turn": []},
        "total_tokens": job.prompt_tokens + job.tokens,
    }
