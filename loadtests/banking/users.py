"""Simulated customers of the bank: what each asks, and what they think of the answers. Seeded; no variant is shown.

A customer knows their own intent. They put their thumb up if the answer names it and down if not, and err in a stated
share of the cases. Shown two answers they prefer the right one, with the same share of errors; if both are wrong they
may write down what they meant. A few can be told to say the opposite of what is so: the poisoners. This page decides;
`crowd.py` asks and tells.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.banking.questions import Plan, Question

NOISE = 0.05
"""The share of judgements that a customer gets wrong, by a slip of the thumb."""
CORRECTS = 0.5
"""The share of customers' wrong answers that they correct, when asked for a preference they do not have."""
POISONERS = 3


@dataclass(frozen=True, slots=True)
class Turn:
    """One question of one customer. `slip`: they will press the wrong button; `corrects`: they would say what is right.

    `poisoner`: in the poisoned record of the same round their judgement is turned round.
    """

    number: int
    user: str
    question: Question
    slip: bool
    corrects: bool
    poisoner: bool


def turns(questions: Sequence[Question], plan: Plan, round_name: str) -> list[Turn]:
    """Everybody's questions of a round, interleaved as customers come: first everyone's first, then the second ones."""
    rng = random.Random(f"{plan.seed}:{round_name}")
    poisoners = set(rng.sample(range(plan.users), min(POISONERS, plan.users)))
    found = []
    for number, question in enumerate(questions):
        user = number % plan.users
        slip, corrects = rng.random() < NOISE, rng.random() < CORRECTS
        found.append(Turn(number, f"{round_name}-{user:03d}", question, slip, corrects, user in poisoners))
    return found


def is_right(answer: str, question: Question) -> bool:
    """Whether an answer names the intent, and nothing else."""
    return answer.strip() == question.intent


def thumb(turn: Turn, answer: str) -> bool:
    """Up or down, as the customer presses it."""
    return is_right(answer, turn.question) is not turn.slip


def poisoned_thumb(turn: Turn, answer: str) -> bool:
    """The same, but poisoners press the opposite of what is so."""
    return not is_right(answer, turn.question) if turn.poisoner else thumb(turn, answer)


def preferred(turn: Turn, first: str, second: str) -> int | None:
    """Which of two answers (0 or 1) the customer prefers; None if they are as good, or as bad, as each other."""
    rights = [is_right(answer, turn.question) for answer in (first, second)]
    if rights[0] == rights[1]:
        return None
    return rights.index(not turn.slip)


def correction(turn: Turn, answer: str) -> str | None:
    """What the customer writes under an answer that is wrong; None if it is right, or they do not bother."""
    return turn.question.intent if turn.corrects and not is_right(answer, turn.question) else None
