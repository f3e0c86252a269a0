"""Simulated customers of the bank: what each asks, and what they think of the answers. Seeded; no variant is shown.

A customer knows their own intent. They put their thumb up if the answer names it and down if not, and err in a stated
share of the cases. Shown two answers they prefer the right one, with the same share of errors; if both are wrong they
may write down what they meant. In a second record of the same thumbs three customers press the opposite of what is so.
This page decides; `crowd.py` asks and tells.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.banking.questions import Plan, Question

NOISE = 0.05
"""The share of judgements that a customer gets wrong, by a slip of the thumb."""
CORRECTS = 0.5
"""The share of customers' wrong answers that they correct, when asked for a preference they do not have."""
POISONERS = 3
POISON = 0.05
"""The share of all thumbs that the poisoners turn round, together."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question of a customer. `slip`: they press the wrong button; `corrects`: they would say what is right."""

    number: int
    user: str
    question: Question
    slip: bool
    corrects: bool


def turns(questions: Sequence[Question], plan: Plan, round_name: str) -> list[Turn]:
    """Everybody's questions of a round, interleaved as customers come: first everyone's first, then the second ones."""
    rng = random.Random(f"{plan.seed}:{round_name}")
    found = []
    for number, question in enumerate(questions):
        slip, corrects = rng.random() < NOISE, rng.random() < CORRECTS
        found.append(Turn(number, f"{round_name}-{number % plan.users:03d}", question, slip, corrects))
    return found


def is_right(answer: str, question: Question) -> bool:
    """Whether an answer names the intent, and nothing else."""
    return answer.strip() == question.intent


def thumb(turn: Turn, answer: str) -> bool:
    """Up or down, as the customer presses it."""
    return is_right(answer, turn.question) is not turn.slip


def poisoned(lines: Sequence[Mapping[str, Any]], seed: int) -> list[bool]:
    """The thumbs of a round (its recorded lines), a share of `POISON` of them turned round by `POISONERS` customers.

    They say that right is wrong and wrong is right, without a slip.
    """
    customers = sorted({line["user"] for line in lines})
    chosen = set(random.Random(seed).sample(customers, min(POISONERS, len(customers))))
    left = round(POISON * len(lines))
    found = []
    for line in lines:
        turned = left > 0 and line["user"] in chosen
        left -= turned
        found.append(not line["right"] if turned else line["up"])
    return found


def preferred(turn: Turn, first: str, second: str) -> int | None:
    """Which of two answers (0 or 1) the customer prefers; None if they are as good, or as bad, as each other."""
    rights = [is_right(answer, turn.question) for answer in (first, second)]
    if rights[0] == rights[1]:
        return None
    return rights.index(not turn.slip)


def correction(turn: Turn, answer: str) -> str | None:
    """What the customer writes under an answer that is wrong; None if it is right, or they do not bother."""
    return turn.question.intent if turn.corrects and not is_right(answer, turn.question) else None
