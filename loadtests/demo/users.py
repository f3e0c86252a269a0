"""Simulated users: each asks through the official OpenAI client, judges the answer by their own case, and says so.

They never see which variant answered before they judge; the variant's name is only counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpx
from openai import AsyncOpenAI, AsyncStream, OpenAIError

from loadtests.demo.triage import Case, answer_of, judge, messages_of

MAX_TOKENS = 28
METRIC = "resolved"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as its user saw it. `served` is the adapter version of `x-adapter`; `error` is a sentence or None."""

    variant: str
    served: str
    good: bool
    seconds: float
    error: str | None = None


@dataclass(slots=True)
class Streamed:
    """One stream: the version it began with, the versions its chunks named, when it began and ended (seconds)."""

    began: float
    ended: float = 0.0
    served: str = ""
    models: set[str] = field(default_factory=set)
    finished: bool = False
    error: str | None = None


class Users:
    """A crowd in front of one gateway with one tenant's key. At most `at_once` of them wait for an answer."""

    def __init__(self, url: str, key: str, *, at_once: int) -> None:
        self.client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120)
        self.http = httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60)
        self.gate = asyncio.Semaphore(at_once)

    async def ask_all(
        self, cases: Iterable[Case], model: str, *, feedback: bool, done: Callable[[Asked], None]
    ) -> list[Asked]:
        """Everybody asks once; returns in the order of `cases`. `done` is called as each one finishes."""
        async with asyncio.TaskGroup() as crowd:
            tasks = [crowd.create_task(self._one(i, case, model, feedback, done)) for i, case in enumerate(cases)]
        return [task.result() for task in tasks]

    async def _one(self, number: int, case: Case, model: str, feedback: bool, done: Callable[[Asked], None]) -> Asked:
        async with self.gate:
            asked = await self._ask(f"user-{number}", case, model, feedback)
        done(asked)
        return asked

    async def _ask(self, user: str, case: Case, model: str, feedback: bool) -> Asked:
        began = time.monotonic()
        try:
            raw = await self.client.chat.completions.with_raw_response.create(
                model=model,
                messages=messages_of(case.text),  # type: ignore[arg-type]  # the client's own TypedDicts, as plain dicts
                max_tokens=MAX_TOKENS,
                temperature=0,
                extra_headers={"x-targeting-key": user},
            )
            completion = raw.parse()
            good = judge(completion.choices[0].message.content or "", case.truth)
            if feedback:
                await self._say(completion.id, good, case)
        except (OpenAIError, httpx.HTTPError) as error:
            return Asked("", "", False, time.monotonic() - began, error=f"{type(error).__name__}: {error}")
        return Asked(raw.headers["x-variant"], raw.headers["x-adapter"], good, time.monotonic() - began)

    async def _say(self, inference_id: str, good: bool, case: Case) -> None:
        body: dict[str, object] = {"inference_id": inference_id, "metric": METRIC, "value": good, "source": "demo user"}
        if not good:
            body["correction"] = answer_of(case.truth)
        (await self.http.post("/v1/feedback", json=body)).raise_for_status()

    async def stream_until(self, cases: list[Case], model: str, *, at_once: int, stop: asyncio.Event) -> list[Streamed]:
        """Keep `at_once` streams open until `stop`, then let each end by itself."""
        streams: list[Streamed] = []

        async def one_after_another(offset: int) -> None:
            turn = offset
            while not stop.is_set():
                stream = Streamed(time.monotonic())
                streams.append(stream)
                await self._stream(stream, cases[turn % len(cases)], model)
                turn += at_once

        async with asyncio.TaskGroup() as crowd:
            for offset in range(at_once):
                crowd.create_task(one_after_another(offset))
        return streams

    async def _stream(self, stream: Streamed, case: Case, model: str) -> None:
        try:
            raw = await self.client.chat.completions.with_raw_response.create(
                model=model,
                messages=messages_of(case.text),  # type: ignore[arg-type]  # as above
                max_tokens=MAX_TOKENS,
                temperature=0,
                stream=True,
            )
            stream.served = raw.headers["x-adapter"]
            chunks = raw.parse()
            assert isinstance(chunks, AsyncStream)  # stream=True
            async for chunk in chunks:
                stream.models.add(chunk.model)
                stream.finished = stream.finished or any(choice.finish_reason for choice in chunk.choices)
        except (OpenAIError, httpx.HTTPError) as error:
            stream.error = f"{type(error).__name__}: {error}"
        stream.ended = time.monotonic()

    async def aclose(self) -> None:
        await self.client.close()
        await self.http.aclose()
