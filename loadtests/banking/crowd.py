"""The customers at the gateway's door: they ask under their own targeting key, and post what they think as feedback.

Every finished turn is a line of a file, and a round that was interrupted goes on after the turns in it. It knows what
an answer is, and leaves to `users.py` what anybody thinks of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from loadtests.banking import users
from loadtests.banking.questions import Pools
from loadtests.banking.users import Turn

THUMBS, POISONED, BETTER = "thumbs", "thumbs-poisoned", "better"
METRICS = {THUMBS: "boolean", POISONED: "boolean", BETTER: "preference"}
MAX_TOKENS = 24
TEMPERATURE = 1.0
"""Of live traffic: answers differ, so that there is something to prefer."""

Tell = Callable[[str], None]
_Take = Callable[[Turn], Awaitable[dict[str, Any]]]


class Record:
    """A file of JSON lines that outlives a kill: what was cut short at its end is forgotten, and asked again."""

    def __init__(self, path: Path) -> None:
        whole = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        whole = [line for line in whole if line.endswith("\n")]
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in whole]
        path.write_text("".join(whole), "utf-8")
        self._path = path

    def add(self, line: dict[str, Any]) -> None:
        """Append one line, at once."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.lines.append(line)


class Crowd:
    """The customers of one round in front of one alias; at most `at_once` of them wait for an answer."""

    def __init__(self, url: str, key: str, alias: str, pools: Pools, *, at_once: int = 8) -> None:
        headers = {"authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=300)
        self._alias, self._pools = alias, pools
        self._gate = asyncio.Semaphore(at_once)

    async def judge(self, turns: Sequence[Turn], record: Record, say: Tell) -> list[dict[str, Any]]:
        """A round of thumbs: one answer each."""
        return await self._round(turns, record, say, self._thumb)

    async def poison(self, lines: Sequence[dict[str, Any]], thumbs: Sequence[bool], record: Record) -> None:
        """Say of the same answers what the poisoned record has, on a metric of its own."""
        done = {line["turn"] for line in record.lines}
        for line, up in zip(lines, thumbs, strict=True):
            if line["turn"] not in done:
                await self._say(line, POISONED, up)
                record.add({"turn": line["turn"], "up": up})

    async def compare(self, turns: Sequence[Turn], record: Record, say: Tell) -> list[dict[str, Any]]:
        """A round of preferences: two sampled answers each, and a correction where both are wrong."""
        return await self._round(turns, record, say, self._pair)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _round(self, turns: Sequence[Turn], record: Record, say: Tell, one: _Take) -> list[dict[str, Any]]:
        """Whoever is not in `record` yet takes their turn; returns all lines, in the order of the turns."""

        async def take(turn: Turn) -> None:
            async with self._gate:
                record.add({"turn": turn.number, "user": turn.user, "intent": turn.question.intent, **await one(turn)})
            say(f"customers ask · {len(record.lines)} of {len(turns)} answered")

        done = {line["turn"] for line in record.lines}
        async with asyncio.TaskGroup() as crowd:
            for turn in turns:
                if turn.number not in done:
                    crowd.create_task(take(turn))
        return sorted(record.lines, key=lambda line: int(line["turn"]))

    async def _thumb(self, turn: Turn) -> dict[str, Any]:
        answer = await self._ask(turn)
        thumb = users.thumb(turn, answer["answer"])
        await self._say(answer, THUMBS, thumb)
        return {**answer, "right": users.is_right(answer["answer"], turn.question), "up": thumb}

    async def _pair(self, turn: Turn) -> dict[str, Any]:
        pair = [await self._ask(turn), await self._ask(turn)]
        texts = [one["answer"] for one in pair]
        best = users.preferred(turn, *texts)
        written = users.correction(turn, texts[0]) if best is None else None
        if best is not None:
            await self._say(pair[best], BETTER, pair[1 - best]["inference_id"])
        elif written is not None:
            await self._say(pair[0], THUMBS, False, correction=written)
        return {"pair": pair, "preferred": best, "corrected": written is not None}

    async def _ask(self, turn: Turn) -> dict[str, Any]:
        body = {"model": self._alias, "messages": self._pools.messages(turn.question), "max_tokens": MAX_TOKENS}
        headers = {"x-targeting-key": turn.user}
        body["temperature"] = TEMPERATURE
        reply = await self._http.post("/v1/chat/completions", json=body, headers=headers)
        reply.raise_for_status()
        found = reply.json()
        served = {"variant": reply.headers["x-variant"], "adapter": reply.headers["x-adapter"]}
        return {**served, "inference_id": found["id"], "answer": found["choices"][0]["message"]["content"] or ""}

    async def _say(self, answer: dict[str, Any], metric: str, value: bool | str, **more: str) -> None:
        body = {"inference_id": answer["inference_id"], "metric": metric, "value": value, "source": "simulated", **more}
        (await self._http.post("/v1/feedback", json=body)).raise_for_status()
