"""vLLM 0.32's bodies and event streams, from a finished `Job` of the fake engine.

The shapes follow vllm/entrypoints/openai/{chat_completion,completion}/serving.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import msgspec

from gateway.engine.fake_answers import Choice, ranked
from gateway.engine.fake_engine import Refused
from gateway.engine.fake_openai import Job

encode = msgspec.json.encode
_MARK = "\ue000a token\ue000"


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
        body |= {"prompt_logprobs": job.prompts[0] if job.prompts else None, "prompt_token_ids": None}
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
        "prompt_logprobs": job.prompts[choice.index // (job.asked.get("n") or 1)] if job.prompts else None,
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
    if job.chat:
        for choice in job.choices:
            yield _chat_event(job, choice, {"role": "assistant", "content": ""}), False
    plain = job.top is None and job.choices[0].tool is None
    render = _plain_delta(job) if plain else _chat_delta if job.chat else _text_delta
    for position in range(max(len(choice.tokens) for choice in job.choices)):
        for choice in job.choices:
            if position < len(choice.tokens):
                yield render(job, choice, position), choice.index == 0
    for choice in job.choices:
        yield _last(job, choice), False
    if job.usage:
        yield encode({**job.head, "choices": [], "usage": job.usage_body()}), False


def _plain_delta(job: Job) -> Callable[[Job, Choice, int], bytes]:
    """Renders tokens without logprobs and tools ten times as fast, from a template: load tests live on it."""
    render = _chat_delta if job.chat else _text_delta
    frames = []
    for choice in job.choices:
        before, after = render(job, replace(choice, tokens=(_MARK,)), 0).split(encode(_MARK))
        frames.append((before, after))

    def fill(_: Job, choice: Choice, position: int) -> bytes:
        before, after = frames[choice.index]
        return before + encode(choice.tokens[position]) + after

    return fill


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


def _text_delta(job: Job, choice: Choice, position: int) -> bytes:
    told = {"index": choice.index, "text": choice.tokens[position], "finish_reason": None, "stop_reason": None}
    told["logprobs"] = _text_logprobs(job, choice, position, position + 1)
    return encode({**job.head, "choices": [told]})


def _last(job: Job, choice: Choice) -> bytes:
    end = {"finish_reason": choice.finish, "stop_reason": choice.stop_reason}
    if job.chat:
        return _chat_event(job, choice, {} if choice.tool else {"content": ""}, **end)
    return encode({**job.head, "choices": [{"index": choice.index, "text": "", "logprobs": None, **end}]})
