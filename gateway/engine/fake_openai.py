"""The fake engine's `/v1/chat/completions` and `/v1/completions`: vLLM 0.32's bodies and event streams.

A request becomes a `Job` (what to answer, checked), which is rendered in one piece or as events. The shapes follow
vllm/entrypoints/openai/{chat_completion,completion}/serving.py.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
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
    prompt_of,
    ranked,
    say,
)
from gateway.engine.fake_engine import FakeEngine, Refused

encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Job:
    """One request, understood. `top` is the number of log-probabilities a token gets beside its own, None for none."""

    chat: bool
    id: str
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


def read_job(engine: FakeEngine, body: Any, *, chat: bool, request_id: str | None) -> Job:
    """Check a request as vLLM does. Raises `Refused`."""
    if not isinstance(body, dict):
        raise Refused(400, "1 validation error:\n  the body must be a JSON object", type="Bad Request", param="body")
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
        chat=chat,
        id=("chatcmpl-" if chat else "cmpl-") + (request_id or uuid.uuid4().hex),
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
    )


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
    stop = [stop] if isinstance(stop, str) else stop
    tool = _tool(body)
    if tool is not None:
        arguments = encode(instance(tool.get("parameters") or {"type": "object"}, voice.word)).decode()
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


def whole(job: Job) -> bytes:
    """The answer in one piece. Raises `Refused` as vLLM does when a log-probability is NaN."""
    if job.nan and job.top is not None:
        raise Refused(400, "Out of range float values are not JSON compliant: nan")
    render = _chat_choice if job.chat else _text_choice
    body = {**job.head, "choices": [render(job, choice) for choice in job.choices]}
    body |= {
        "service_tier": None,
        "system_fingerprint": None,
        "usage": {**job.usage_body(), "prompt_tokens_details": None},
    }
    body |= {"kv_transfer_params": None}
    if job.chat:
        body |= {"prompt_logprobs": None, "prompt_token_ids": None}
    return encode(body)


def _chat_choice(job: Job, choice: Choice) -> dict[str, Any]:
    calls = []
    if choice.tool is not None:
        function = {"name": choice.tool, "arguments": choice.text}
        calls = [{"id": _call_id(job, choice), "type": "function", "function": function}]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "" if calls else choice.text,
        "refusal": None,
        "annotations": None,
    }
    message |= {"audio": None, "function_call": None, "tool_calls": calls, "reasoning": None}
    return {
        "index": choice.index,
        "message": message,
        "logprobs": None
        if job.top is None
        else {"content": [_chat_logprob(job, choice, k) for k in range(len(choice.tokens))]},
        "finish_reason": choice.finish,
        "stop_reason": choice.stop_reason,
        "token_ids": None,
    }


def _call_id(job: Job, choice: Choice) -> str:
    return f"chatcmpl-tool-{job.id[-16:]}{choice.index}"


def _chat_logprob(job: Job, choice: Choice, position: int) -> dict[str, Any]:
    token = choice.tokens[position]
    likely = ranked(job.voice, token, position, max(1, job.top or 0))
    shown = [_one_logprob(job, text, value) for text, value in likely]
    return {**_one_logprob(job, *likely[0]), "top_logprobs": shown[: job.top]}


def _one_logprob(job: Job, token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": None if job.nan else value, "bytes": list(token.encode())}


def _text_choice(job: Job, choice: Choice) -> dict[str, Any]:
    return {
        "index": choice.index,
        "text": choice.text,
        "logprobs": _text_logprobs(job, choice, 0, len(choice.tokens)),
        "finish_reason": choice.finish,
        "stop_reason": choice.stop_reason,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
    }


def _text_logprobs(job: Job, choice: Choice, first: int, last: int) -> dict[str, Any] | None:
    if job.top is None:
        return None
    offset = sum(len(token) for token in choice.tokens[:first])
    body: dict[str, list[Any]] = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
    for position in range(first, last):
        likely = ranked(job.voice, choice.tokens[position], position, max(1, job.top))
        body["text_offset"].append(offset)
        body["token_logprobs"].append(None if job.nan else likely[0][1])
        body["tokens"].append(likely[0][0])
        body["top_logprobs"].append({text: None if job.nan else value for text, value in likely})
        offset += len(choice.tokens[position])
    return body


def events(job: Job) -> Iterator[tuple[bytes, bool]]:
    """The events of a stream without `[DONE]`, each with whether a token's time passes before it."""
    render = _chat_delta if job.chat else _text_delta
    if job.chat:
        for choice in job.choices:
            yield _chat_event(job, choice, {"role": "assistant", "content": ""}), False
    for position in range(max(len(choice.tokens) for choice in job.choices)):
        for choice in job.choices:
            if position < len(choice.tokens):
                yield render(job, choice, position), choice.index == 0
    for choice in job.choices:
        yield _last(job, choice), False
    if job.usage:
        yield encode({**job.head, "choices": [], "usage": job.usage_body()}), False


def _chat_event(job: Job, choice: Choice, delta: dict[str, Any], logprobs: Any = None, **last: Any) -> bytes:
    told = {"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": None, **last}
    return encode({**job.head, "choices": [told]})


def _chat_delta(job: Job, choice: Choice, position: int) -> bytes:
    delta: dict[str, Any] = {"content": choice.tokens[position]}
    if choice.tool is not None:
        call: dict[str, Any] = {"index": 0, "function": {"arguments": choice.tokens[position]}}
        if position == 0:
            call |= {"id": _call_id(job, choice), "type": "function"}
            call["function"]["name"] = choice.tool
        delta = {"tool_calls": [call]}
    return _chat_event(
        job, choice, delta, None if job.top is None else {"content": [_chat_logprob(job, choice, position)]}
    )


def _text_delta(job: Job, choice: Choice, position: int, **last: Any) -> bytes:
    told = {"index": choice.index, "text": choice.tokens[position], "finish_reason": None, "stop_reason": None}
    told["logprobs"] = _text_logprobs(job, choice, position, position + 1)
    return encode({**job.head, "choices": [told]})


def _last(job: Job, choice: Choice) -> bytes:
    end = {"finish_reason": choice.finish, "stop_reason": choice.stop_reason}
    if job.chat:
        return _chat_event(job, choice, {} if choice.tool else {"content": ""}, **end)
    return encode({**job.head, "choices": [{"index": choice.index, "text": "", "logprobs": None, **end}]})
