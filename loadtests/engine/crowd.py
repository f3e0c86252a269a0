"""A crowd of open streams, and when each of their tokens came. HTTP only; it knows nothing of adapters or swaps."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

SETTLE_SECONDS = 3.0
"""What the crowd streams undisturbed, after its last first token, before anything is measured."""


@dataclass
class Stream:
    """One stream's tokens, in `time.perf_counter` seconds."""

    tokens: list[float] = field(default_factory=list)
    ended: bool = False


@dataclass(frozen=True)
class Gaps:
    """Milliseconds between two tokens of one stream: within a window, and in the undisturbed time before it."""

    inside: list[float]
    before: list[float]


class Crowd:
    """Streams that are being read."""

    def __init__(self, streams: list[Stream], began: float) -> None:
        self._streams = streams
        self._began = began

    def gaps(self, start: float, end: float) -> Gaps:
        """A gap is inside when it overlaps the window, so the one in which the engine stood still counts."""
        gaps = [pair for stream in self._streams for pair in zip(stream.tokens, stream.tokens[1:], strict=False)]
        inside = [(b - a) * 1000 for a, b in gaps if b > start and a < end]
        return Gaps(inside, [(b - a) * 1000 for a, b in gaps if a >= self._began and b <= start])

    @property
    def open(self) -> int:
        return sum(not stream.ended for stream in self._streams)


@asynccontextmanager
async def crowd(client: httpx.AsyncClient, model: str, size: int) -> AsyncIterator[Crowd]:
    """`size` streams on `model`, each for as long as the block takes; it begins once all of them are flowing."""
    streams = [Stream() for _ in range(size)]
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(_read(client, model, number, one)) for number, one in enumerate(streams)]
        while not all(stream.tokens for stream in streams):  # noqa: ASYNC110 - 24 events for one wait
            await asyncio.sleep(0.05)
        began = time.perf_counter()
        if size:
            await asyncio.sleep(SETTLE_SECONDS)
        try:
            yield Crowd(streams, began)
        finally:
            for reader in readers:
                reader.cancel()


async def _read(client: httpx.AsyncClient, model: str, number: int, stream: Stream) -> None:
    while True:
        async for _ in tokens(client, model, f"Story {number}. Once upon a time", most=600):
            stream.tokens.append(time.perf_counter())
        stream.ended = True  # and go on: a crowd keeps its size


async def tokens(client: httpx.AsyncClient, model: str, prompt: str, *, most: int) -> AsyncIterator[dict[str, Any]]:
    """The events of one streamed completion that carry a token. Raises `RuntimeError` when it is refused or breaks."""
    body = {"model": model, "prompt": prompt, "max_tokens": most, "temperature": 0, "ignore_eos": True, "stream": True}
    async with client.stream("POST", "/v1/completions", json=body) as reply:
        if reply.status_code != 200:
            raise RuntimeError(f"{model} answered {reply.status_code}: {(await reply.aread()).decode()}")
        async for line in reply.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event: dict[str, Any] = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise RuntimeError(f"{model} broke off: {event['error']}")
            yield event | {"served": reply.headers.get("x-adapter")}
