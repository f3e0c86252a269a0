"""Patience, counting and memory: what becomes of requests that are not answered at once, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.examples import Example
from tests.trainer.gate.stub import Reply, Stub, chat, refused, served
from trainer.asking import Asker, Unanswered
from trainer.errors import GatewayFailed
from trainer.gate.evaluation import Evaluated, Kept, Version, evaluate
from trainer.gate.judge import Opinion, opinion
from trainer.gate.questions import Forced, Question
from trainer.settings.gate import Judge

VERSION = Version("candidate", "acme/support.trial@1", "sha256 of weights")


def question(text: str, **more: Any) -> Question:
    return Question(Example(messages=[{"role": "user", "content": text}], completion="yes"), 8, **more)


async def ask(stub: Stub, questions: list[Question], path: Path, told: list[str] | None = None) -> Evaluated:
    with Kept(path) as kept:
        async with Asker(stub.url, "key", at_once=2) as asker:
            return await evaluate(VERSION, questions, asker, kept, (told if told is not None else []).append)


async def test_a_busy_gateway_is_asked_again_when_it_says(tmp_path: Path):
    busy = [refused(429, retry_after="0.1"), refused(503, retry_after="0.1"), refused(500)]
    async with served(Stub(lambda _, n: busy[n] if n < 3 else chat("yes"))) as stub:
        found = await ask(stub, [question("a")], tmp_path / "asked.jsonl")
    assert [one.answer for one in found.outcomes] == ["yes"] and not found.failures
    assert len(stub.seen) == 4 and stub.seen[0]["model"] == "acme/support.trial@1" and stub.seen[0]["temperature"] == 0


async def test_a_lost_row_is_counted_and_is_not_a_zero(tmp_path: Path):
    told: list[str] = []

    def answer(body: dict[str, Any], _: int) -> Reply:
        return refused(400, "too long") if body["messages"][0]["content"] == "row 7" else chat("yes")

    async with served(Stub(answer)) as stub:
        found = await ask(stub, [question(f"row {n}") for n in range(40)], tmp_path / "asked.jsonl", told)
    assert found.outcomes[7].answer is None and found.outcomes[8].answer == "yes"
    assert found.failures == {"too long": 1} and "candidate: 39 of 40 answers, 1 lost" in told


async def test_nothing_is_decided_when_too_much_is_lost_and_what_was_answered_is_kept(tmp_path: Path):
    path, fails = tmp_path / "asked.jsonl", True

    def answer(body: dict[str, Any], _: int) -> Reply:
        return refused(400, "broken") if fails and body["messages"][0]["content"] in ("0", "1") else chat("yes")

    async with served(Stub(answer)) as stub:
        with pytest.raises(GatewayFailed, match="2 of 10 requests about candidate were not answered"):
            await ask(stub, [question(str(n)) for n in range(10)], path)
        with path.open("a") as file:
            file.write('{"asked": "half a li')  # killed here
        fails, before = False, len(stub.seen)
        again = await ask(stub, [question(str(n)) for n in range(10)], path)
        assert len(stub.seen) - before == 2
    assert all(one.answer == "yes" for one in again.outcomes)
    assert all(json.loads(line) for line in path.read_text().splitlines())


async def test_a_key_that_opens_nothing_ends_it_at_once_rather_than_row_by_row(tmp_path: Path):
    stub = Stub(lambda *_: refused(401, "Incorrect API key"))
    async with served(stub), Asker(stub.url, "key", at_once=1, news_seconds=0.1) as asker:
        with pytest.raises(GatewayFailed, match="the gateway refuses: Incorrect API key"):
            await asker.ask("/chat/completions", {})


async def test_log_probabilities_are_those_of_the_completion_only(tmp_path: Path):
    listed = [None, *({str(token): {"logprob": -token / 10}} for token in (11, 12, 13))]

    def answer(body: dict[str, Any], _: int) -> Reply:
        return chat("yes") if "messages" in body else (200, {"choices": [{"prompt_logprobs": listed}]}, {})

    async with served(Stub(answer)) as stub:
        found = await ask(stub, [question("a", forced=Forced([10, 11, 12, 13], 2))], tmp_path / "asked.jsonl")
        listed[3] = None
        with pytest.raises(GatewayFailed, match="holds no log-probabilities of the prompt"):
            await ask(stub, [question("b", forced=Forced([10, 11, 12, 13], 2))], tmp_path / "other.jsonl")
    assert found.outcomes[0].logprobs == (-1.2, -1.3)
    forced = next(body for body in stub.seen if "prompt" in body)
    assert (forced["prompt"], forced["max_tokens"], forced["prompt_logprobs"]) == ([10, 11, 12, 13], 1, 0)


async def test_a_gateway_that_is_gone_leaves_the_row_unanswered():
    async with Asker("http://127.0.0.1:9", "key", at_once=1, tries=1) as asker:
        with pytest.raises(Unanswered, match="the connection broke"):
            await asker.ask("/x", {})


ROWS = [Example(messages=[{"role": "user", "content": f"q{n}"}], completion="good") for n in range(3)]
PAIRS = [row.model_copy(update={"kind": "preference", "rejected": "bad"}) for row in ROWS]


async def judged(answer: Any, rows: list[Example]) -> Opinion:
    async with served(Stub(answer)) as stub:
        return await opinion(
            Judge(url=f"{stub.url}/v1", model="m"), rows, ["good", "bad", "good"], ["bad", "bad", "worse"]
        )


async def test_a_judge_that_reads_finds_the_better_answer_in_both_orders():
    def reads(body: dict[str, Any], _: int) -> Reply:
        text = body["messages"][1]["content"]
        return chat("Answer A." if text.index("good") < max(text.find("bad"), text.find("worse")) else "B")

    found = await judged(reads, PAIRS)
    assert (found.wins, found.losses, found.ties, found.failed) == (2, 0, 1, 0)  # two answers are the same
    assert (found.agreed, found.human) == (3.0, 3)


async def test_a_judge_that_likes_the_first_answer_whatever_it_says_finds_ties():
    found = await judged(lambda *_: chat("A"), PAIRS)
    assert (found.wins, found.losses, found.ties) == (0, 0, 3)
    assert (found.agreed, found.human) == (1.5, 3)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda *_: refused(401), "the judge answers with status 401"),
        (lambda *_: chat("Both are fine"), "with none of"),
    ],
)
async def test_a_judge_that_fails_is_reported_and_stops_nothing(answer: Any, why: str):
    found = await judged(answer, ROWS)
    assert (found.wins, found.losses, found.ties, found.failed, found.human) == (0, 0, 1, 2, 0)
    assert found.why is not None and why in found.why
