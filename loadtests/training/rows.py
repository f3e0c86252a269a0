"""Rows like those of a bank's support: a system prompt that names a dozen intents, a question, an intent. Seeded.

The questions are the demo's; which intent is right is drawn, since only time and losses are looked at.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from adapters.examples import Example

INTENTS = (
    *(
        "card_arrival",
        "card_linking",
        "exchange_rate",
        "cash_withdrawal_charge",
        "pending_card_payment",
        "lost_or_stolen_card",
    ),
    *(
        "top_up_failed",
        "transfer_not_received_by_recipient",
        "verify_my_identity",
        "request_refund",
        "pin_blocked",
        "age_limit",
    ),
)
SYSTEM = "You sort the questions of a bank's customers. Answer with one of these intents and nothing else: "
_QUESTIONS = Path(__file__).parent.parent / "demo" / "data" / "train.jsonl"


def examples(recipe: str, count: int, *, seed: int = 0) -> list[Example]:
    """`count` rows for a recipe: demonstrations, preferences (another intent is rejected), or labels (a third good)."""
    dice = random.Random(seed)
    questions = [json.loads(line)["prompt"] for line in _QUESTIONS.read_text("utf-8").splitlines()]
    system = {"role": "system", "content": SYSTEM + ", ".join(INTENTS) + "."}
    found = []
    for number in range(count):
        right, wrong = dice.sample(INTENTS, 2)
        messages = [system, {"role": "user", "content": questions[number % len(questions)]}]
        if recipe == "dpo":
            found.append(Example(messages=messages, completion=right, kind="preference", rejected=wrong))
        elif recipe == "kto":
            found.append(Example(messages=messages, completion=right, kind="label", label=number % 3 == 0))
        else:
            found.append(Example(messages=messages, completion=right))
    return found
