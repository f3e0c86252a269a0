"""The task: a customer's question to a bank → what they want, one of a few intents. Rows, pools and truths, seeded.

It reads banking77's train.csv and test.csv (`text,category`; Casanueva et al. 2020, CC-BY-4.0) from a folder that the
caller names, and knows nothing of gateways or training. The pools are disjoint, by the question's text too: what users
ask is never a question that was written down as an example, and `test` holds rows of test.csv only.
"""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


class NoQuestions(Exception):
    """The folder does not hold what this needs; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a customer writes, and the intent that is right."""

    text: str
    intent: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything. Two runs with equal plans and data do the same.

    `intents` are the most frequent in train.csv (a rule, so that nobody chose them); `written` and `checked` rows of
    each are examples to train on and to tune by; `users` ask `questions` each, in a round of thumbs and in one of
    preferences; `tested` rows of test.csv of each intent are what the gate sees.
    """

    intents: int = 8
    written: int = 20
    checked: int = 10
    users: int = 60
    questions: int = 10
    tested: int = 30
    seed: int = 77


QUICK = Plan(intents=5, written=20, checked=8, users=25, questions=10, tested=40)


@dataclass(frozen=True, slots=True)
class Pools:
    """Disjoint questions: `written` and `checked` come with the intent, of `thumbs` and `pairs` only users know it."""

    intents: list[str]
    written: list[Question] = field(default_factory=list)
    checked: list[Question] = field(default_factory=list)
    thumbs: list[Question] = field(default_factory=list)
    pairs: list[Question] = field(default_factory=list)
    test: list[Question] = field(default_factory=list)

    @property
    def system(self) -> str:
        """What every request begins with: the intents by name."""
        return f"Name the customer's intent. Answer with one of: {', '.join(self.intents)}."

    def messages(self, question: Question) -> list[dict[str, str]]:
        """The chat that asks for one intent."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": question.text}]

    def save(self, pool: str, directory: Path) -> Path:
        """Write a pool as the trainer reads it (messages and completion); returns the file's path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{pool}.jsonl"
        rows = [{"messages": self.messages(one), "completion": one.intent} for one in getattr(self, pool)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path


def prepare(data: Path, plan: Plan) -> Pools:
    """Read the two files and deal the questions out. Raises `NoQuestions`."""
    train, test = read(data / "train.csv"), read(data / "test.csv")
    intents = sorted(name for name, _ in Counter(one.intent for one in train).most_common(plan.intents))
    rng = random.Random(plan.seed)
    kept_apart = {_plain(one.text) for one in test}
    pools = Pools(intents)
    waiting: list[Question] = []
    for intent in intents:
        asked = _distinct([one for one in train if one.intent == intent and _plain(one.text) not in kept_apart])
        rng.shuffle(asked)
        pools.written.extend(asked[: plan.written])
        pools.checked.extend(asked[plan.written : plan.written + plan.checked])
        waiting.extend(asked[plan.written + plan.checked :])
        pools.test.extend(_distinct([one for one in test if one.intent == intent])[: plan.tested])
    wanted = plan.users * plan.questions
    if len(waiting) < 2 * wanted:
        raise NoQuestions(
            f"{data} has {len(waiting)} questions for users, and {2 * wanted} are needed: name a folder with banking77"
        )
    for pool in (pools.written, pools.checked, waiting):
        rng.shuffle(pool)
    pools.thumbs.extend(waiting[:wanted])
    pools.pairs.extend(waiting[wanted : 2 * wanted])
    return pools


def read(path: Path) -> list[Question]:
    """The rows of a CSV file with `text` and `category`. Raises `NoQuestions`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [Question(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise NoQuestions(f"{path} is not banking77's ({type(error).__name__}: {error}): see --help") from error
    if not rows:
        raise NoQuestions(f"{path} holds no rows")
    return rows


def _plain(text: str) -> str:
    """What two ways of typing one question have in common."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())


def _distinct(questions: list[Question]) -> list[Question]:
    return list({_plain(one.text): one for one in reversed(questions)}.values())[::-1]
