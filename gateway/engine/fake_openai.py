"""What a request to the fake engine asks for: checked as vLLM 0.32 does, and answered, as a `Job`.

Responses and messages are read as the chats they are (`fake_responses.py`, `fake_messages.py`), as vLLM reads them. It
knows nothing of HTTP; `fake_render.py` and those two turn a job into vLLM's bodies and events.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from gateway.engine.fake_answers import (
    Choice,
    Voice,
    choose,
    count_tokens,
    instance,
    json_answer,
    prompt_logprobs,
    prompt_of,
    say,
    token_ids,
)
from gateway.engine.fake_engine import FakeEngine, Refused
from gateway.engine.fake_messages import messages_as_chat
from gateway.engine.fake_responses import responses_as_chat

READ_AS_CHAT = {"responses": responses_as_chat, "messages": messages_as_chat}


@dataclass(frozen=True, slots=True)
class Job:
    """One request, understood. `top` is the number of log-probabilities a token gets beside its own, None for none;
    `asked` is the body as it came. `prompts` is what is told of each prompt's log-probabilities, None for nothing.
    """

    kind: str
    """"chat", "text", "responses" or "messages"."""
    id: str
    asked: dict[str, Any]
    created: int
    model: str
    adapter: str | None
    voice: Voice
    choices: tuple[Choice, ...]
    prompt_tokens: int
    stream: bool
    usage: bool
    top: int | None
    nan: bool
    prompts: tuple[list[dict[str, Any] | None], ...] | None = None

    @property
    def chat(self) -> bool:
        return self.kind != "text"

    @property
    def head(self) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if self.stream else "chat.completion") if self.chat else "text_completion"
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    @property
    def tokens(self) -> int:
        return sum(len(choice.tokens) for choice in self.choices)

    def usage_body(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
            "completion_tokens": self.tokens,
        }


def read_job(engine: FakeEngine, asked: Any, *, kind: str, request_id: str | None) -> Job:
    """Check a request as vLLM does. Raises `Refused`."""
    if not isinstance(asked, dict):
        raise Refused(400, "1 validation error:\n  the body must be a JSON object", type="Bad Request", param="body")
    chat, body = kind != "text", READ_AS_CHAT[kind](asked) if kind in READ_AS_CHAT else asked
    adapter, voice = engine.voice(body.get("model"))
    prompts = [prompt_of(_messages(body))] if chat else _prompts(body)
    limit = _limit(engine, body, max(count_tokens(prompt) for prompt in prompts), chat=chat)
    nan = body.get("model") in engine.faults.nan
    voice = Voice("!", "!") if nan else voice
    choices: list[Choice] = []
    for prompt in prompts:
        for index in range(_integer(body, "n", 1, least=1)):
            choices.append(_choice(engine, body, voice, prompt, index=index, place=len(choices), limit=limit))
    top = (_integer(body, "top_logprobs", 0) if body.get("logprobs") else None) if chat else body.get("logprobs")
    options = body.get("stream_options") or {}
    return Job(
        kind=kind,
        id=_id(kind, asked, request_id or uuid.uuid4().hex),
        asked=asked,
        created=int(time.time()),
        model=adapter or engine.options.base_model,
        adapter=adapter,
        voice=voice,
        choices=tuple(choices),
        prompt_tokens=sum(count_tokens(prompt) for prompt in prompts),
        stream=body.get("stream") is True,
        usage=bool(options.get("include_usage")),
        top=top,
        nan=nan,
        prompts=_told_of_prompts(body, voice, prompts),
    )


def _id(kind: str, asked: dict[str, Any], request_id: str) -> str:
    if kind == "responses":  # only the body's own field counts
        return str(asked.get("request_id") or f"resp_{uuid.uuid4().hex}")
    return ("cmpl-" if kind == "text" else "chatcmpl-") + request_id


def _messages(body: dict[str, Any]) -> list[Any]:
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise Refused(400, "1 validation error:\n  Field required", type="Bad Request", param="body.messages")
    return messages


def _prompts(body: dict[str, Any]) -> list[str]:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and all(isinstance(part, int) for part in prompt):
        return [" ".join(map(str, prompt))]
    prompts: list[Any] = prompt if isinstance(prompt, list) else [prompt]
    if not prompts or not all(isinstance(one, str | list) for one in prompts):
        raise Refused(400, "Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
    return [one if isinstance(one, str) else " ".join(map(str, one)) for one in prompts]


def _told_of_prompts(
    body: dict[str, Any], voice: Voice, prompts: list[str]
) -> tuple[list[dict[str, Any] | None], ...] | None:
    if body.get("prompt_logprobs") is None:
        return None
    count = _integer(body, "prompt_logprobs", 0)
    if body.get("stream") and count:
        raise Refused(400, "`prompt_logprobs` are not available when `stream=True`.", param="prompt_logprobs")
    return tuple(prompt_logprobs(voice, _token_ids(prompt), count) for prompt in prompts)


def _token_ids(prompt: str) -> list[int]:
    """A prompt of ids as it came; of a text, its words."""
    words = prompt.split()
    return [int(word) for word in words] if all(map(str.isdigit, words)) else token_ids(prompt)


def _integer(body: dict[str, Any], name: str, default: int, *, least: int = 0) -> int:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise Refused(400, f"{name} must be at least {least}, got {value}.", param=name)
    return value


def _limit(engine: FakeEngine, body: dict[str, Any], prompt_tokens: int, *, chat: bool) -> int:
    """How many tokens may be generated."""
    room = engine.options.max_model_len - prompt_tokens
    asked = _integer(body, "max_completion_tokens", 0) if chat else 0
    asked = asked or _integer(body, "max_tokens", room if chat else 16, least=1 if chat else 0)
    if asked > room or room <= 0:
        raise Refused(
            400,
            f"This model's maximum context length is {engine.options.max_model_len} tokens. However, you requested "
            f"{asked} output tokens and your prompt contains {prompt_tokens} input tokens. Please reduce the length.",
            param="input_tokens",
        )
    return asked


def _choice(
    engine: FakeEngine, body: dict[str, Any], voice: Voice, prompt: str, *, index: int, place: int, limit: int
) -> Choice:
    stop = body.get("stop") or []
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    tool = _tool(body)
    if tool is not None:
        arguments = msgspec.json.encode(instance(tool.get("parameters") or {"type": "object"}, voice.word)).decode()
        choice = choose(arguments, index=place, limit=limit, stop=(), tool=str(tool.get("name")))
        called = choice.finish == "stop" and body.get("tool_choice") == "required"
        return replace(choice, finish="tool_calls") if called else choice
    if (body.get("response_format") or {}).get("type") in ("json_object", "json_schema"):
        return choose(json_answer(voice, prompt, body["response_format"]), index=place, limit=limit, stop=stop)
    length = limit if body.get("ignore_eos") else engine.setting("tokens")
    text = say(voice, prompt, index=index, tokens=length)
    return choose((prompt if body.get("echo") else "") + text, index=place, limit=limit, stop=stop)


def _tool(body: dict[str, Any]) -> dict[str, Any] | None:
    """The function to call: the one `tool_choice` names, or the first if one is required."""
    tools = [tool.get("function") or {} for tool in body.get("tools") or []]
    wanted = body.get("tool_choice")
    if isinstance(wanted, dict):
        name = (wanted.get("function") or {}).get("name")
        found = [tool for tool in tools if tool.get("name") == name]
        if not found:
            raise Refused(400, "The tool specified in `tool_choice` does not match any of the specified `tools`")
        return dict(found[0])
    return dict(tools[0]) if wanted == "required" and tools else None
