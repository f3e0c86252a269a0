"""What the mock upstream says: events, bodies and probes, made once for each model and pace and kept.

Pure functions; the server is `mock.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

WISH = re.compile(rb"\(mock ([a-z0-9=. ]{1,80})\)")
MODEL = re.compile(rb'"model": ?"([^"\\]{1,200})"')
_ID = b"@" * 53
"""Stands for the id until it is known: as long as the ids that Tuneloop gives, so that lengths rarely change."""

JSON_HEAD = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Pace:
    """How an answer comes: its length in tokens, seconds before the first and between two, letters in a token."""

    tokens: int = 50
    ttft: float = 0.0
    itl: float = 0.0
    width: int = 5

    def wished(self, words: bytes) -> Pace:
        """With what `tokens=200 itl=0.2` asks for; what makes no sense is passed over."""
        told: dict[str, Any] = {}
        for word in words.decode().split():
            name, _, value = word.partition("=")
            with contextlib.suppress(ValueError):
                if name in ("tokens", "width"):
                    told[name] = min(max(1, int(value)), 100_000)
                elif name in ("ttft", "itl"):
                    told[name] = min(float(value), 600.0)
        return replace(self, **told)


def frame(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _event(model: str, delta: dict[str, str], finish: str | None, *, chat: bool) -> bytes:
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish}
    choice |= {"delta": delta} if chat else {"text": delta.get("content", "")}
    kind = "chat.completion.chunk" if chat else "text_completion"
    body = {"id": _ID.decode(), "object": kind, "created": 1, "model": model, "choices": [choice]}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


@lru_cache(maxsize=256)
def events(model: str, pace: Pace, *, chat: bool, usage: bool) -> tuple[bytes, ...]:
    """The SSE events of one stream, without the framing, ids still to be put in."""
    words = [{"content": f"t{i}".ljust(pace.width, "x") + " "} for i in range(pace.tokens)]
    last = len(words) - 1
    made = [_event(model, word, "stop" if i == last else None, chat=chat) for i, word in enumerate(words)]
    if usage:
        told = {"id": _ID.decode(), "object": "chat.completion.chunk", "created": 1, "model": model, "choices": []}
        told["usage"] = {"prompt_tokens": 20, "completion_tokens": pace.tokens, "total_tokens": 20 + pace.tokens}
        made.append(b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n")
    return (*made, b"data: [DONE]\n\n")


@lru_cache(maxsize=256)
def burst(model: str, pace: Pace, *, chat: bool, usage: bool) -> bytes:
    """A whole stream, each event in a frame of its own, as a server that flushes every token sends it."""
    return STREAM_HEAD + b"".join(map(frame, events(model, pace, chat=chat, usage=usage))) + END


@lru_cache(maxsize=256)
def whole(model: str, pace: Pace, *, chat: bool) -> bytes:
    """The body of an answer in one piece."""
    text = " ".join(["tok".ljust(pace.width, "x")] * pace.tokens)
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "stop"}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    usage = {"prompt_tokens": 20, "completion_tokens": pace.tokens, "total_tokens": 20 + pace.tokens}
    kind = "chat.completion" if chat else "text_completion"
    body = {"id": _ID.decode(), "object": kind, "created": 1, "model": model, "choices": [choice], "usage": usage}
    return json.dumps(body).encode()


def with_id(body: bytes, request_id: bytes, *, chat: bool) -> bytes:
    """vLLM's rule: the id is `X-Request-Id` behind a prefix. Cut or padded, so that frames keep their lengths."""
    told = (b"chatcmpl-" if chat else b"cmpl-") + (request_id or b"1")
    return body.replace(_ID, told[: len(_ID)].ljust(len(_ID), b"0"))


def probed(body: bytes) -> dict[str, Any]:
    """One token with log-probabilities that differ from model to model: what a gateway tries an adapter with."""
    asked = json.loads(body)
    digest = hashlib.sha256(str(asked.get("model", "")).encode()).digest()
    ranked = {f" w{i}": -0.1 - i - digest[i] / 512 for i in range(5)}
    logprobs = {"tokens": [" w0"], "token_logprobs": [ranked[" w0"]], "top_logprobs": [ranked], "text_offset": [0]}
    choice = {"index": 0, "text": " w0", "finish_reason": "length", "logprobs": logprobs}
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": asked.get("model"),
        "choices": [choice],
    } | {"usage": usage}
