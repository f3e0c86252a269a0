"""All answers and log-probabilities of one version, asked for once and kept: a gate that was killed asks the rest only.

`asked.jsonl` holds one line an answer, by the SHA-256 of weights and request; half a line at its end is nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trainer.asking import Asker, Unanswered
from trainer.errors import GatewayFailed
from trainer.gate.figures import Outcome
from trainer.gate.questions import Question

MAY_FAIL = 0.05
"""With more requests than this unanswered nothing is decided: it would be decided by what happened to work."""
_TOLD_SECONDS = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Version:
    """`name` is its part in the comparison (base, incumbent, candidate, or its ref), `model` what the gateway calls it.

    `weights` names its content for good, as a digest.
    """

    name: str
    model: str
    weights: str


class Kept:
    """The answers so far, in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self._found: dict[str, Any] = {}
        text = path.read_text("utf-8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        for line in whole.splitlines():
            entry = json.loads(line)
            self._found[entry["asked"]] = entry["answer"]
        self._file = path.open("r+" if path.exists() else "w", encoding="utf-8")
        self._file.truncate(len(whole.encode()))
        self._file.seek(0, 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def get(self, key: str) -> Any:
        """What was kept; None if nothing."""
        return self._found.get(key)

    def keep(self, key: str, answer: Any) -> None:
        self._found[key] = answer
        self._file.write(json.dumps({"asked": key, "answer": answer}) + "\n")
        self._file.flush()


@dataclass(frozen=True, slots=True)
class Evaluated:
    """`outcomes` are in the order of the questions; `failures` counts reasons of unanswered requests."""

    outcomes: list[Outcome]
    requests: int
    failures: Counter[str]


async def evaluate(version: Version, questions: Sequence[Question], asker: Asker, kept: Kept, say: Say) -> Evaluated:
    """Ask one version everything. Raises `GatewayFailed` when more than `MAY_FAIL` of it stays unanswered."""
    asked = [(n, name, *request) for n, q in enumerate(questions) for name, request in q.requests().items()]
    found: list[dict[str, Any]] = [{} for _ in questions]
    failures: Counter[str] = Counter()
    done, told = 0, time.monotonic()

    async def one(n: int, name: str, path: str, body: dict[str, Any]) -> None:
        nonlocal done, told
        key = _key(version, path, body)
        answer = kept.get(key)
        try:
            if answer is None:
                reply = await asker.ask(path, {"model": version.model, **body})
                answer = _answer(reply) if name == "answer" else _logprobs(reply, body, questions[n].start_of(name))
                kept.keep(key, answer)
            found[n][name] = answer
        except Unanswered as why:
            failures[str(why)] += 1
        done += 1
        if time.monotonic() - told > _TOLD_SECONDS:
            told = time.monotonic()
            say(f"{version.name}: {done} of {len(asked)} answers")

    try:
        async with asyncio.TaskGroup() as group:
            for request in asked:
                group.create_task(one(*request))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    lost = failures.total()
    say(f"{version.name}: {len(asked) - lost} of {len(asked)} answers" + (f", {lost} lost" if lost else ""))
    if lost > MAY_FAIL * len(asked):
        reason, count = failures.most_common(1)[0]
        what = f"{lost} of {len(asked)} requests about {version.name} were not answered ({reason}, {count} times)"
        raise GatewayFailed(what, "run the same command again; it asks the rest only")
    return Evaluated([_outcome(of) for of in found], len(asked), failures)


def _outcome(of: dict[str, Any]) -> Outcome:
    answer = of.get("answer") or {}
    labels = {name.removeprefix("label:"): sum(logs) for name, logs in of.items() if name.startswith("label:")}
    forced = {name: tuple(of[name]) if name in of else None for name in ("forced", "rejected")}
    return Outcome(answer.get("text"), answer.get("finish"), forced["forced"], forced["rejected"], labels)


def _key(version: Version, path: str, body: dict[str, Any]) -> str:
    text = json.dumps([version.weights, path, body], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _answer(reply: dict[str, Any]) -> dict[str, Any]:
    try:
        choice = reply["choices"][0]
        return {"text": str(choice["message"]["content"] or ""), "finish": choice["finish_reason"]}
    except (KeyError, IndexError, TypeError):
        raise Unanswered("the answer holds no text") from None


def _logprobs(reply: dict[str, Any], body: dict[str, Any], start: int) -> list[float]:
    """The log-probability of each prompt token from `start` on, as vLLM lists them: one object a position, by id."""
    try:
        listed = reply["choices"][0]["prompt_logprobs"]
        found = [float(listed[n][str(token)]["logprob"]) for n, token in enumerate(body["prompt"]) if n >= start]
    except (KeyError, IndexError, TypeError, ValueError):
        raise Unanswered("the answer holds no log-probabilities of the prompt") from None
    if not all(map(math.isfinite, found)):
        raise Unanswered("a log-probability is not finite")
    return found
