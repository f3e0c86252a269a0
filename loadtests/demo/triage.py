"""The demo's task: a customer's message to Fernlight (garden lights, made up) → the team that answers it, and how soon.

The answer is one line of JSON, `{"team":"billing","urgency":"high"}`. Team: what has to be done (danger to people or
property is always safety). Urgency: high if it must be solved today or damage goes on, low for questions and ideas,
normal for any other problem. This page knows nothing of gateways or training: messages, truth and judgement.

Pools in `data/`, rows of prompt and completion: `train` (what the desk had written down before sales and safety joined
it), `users` (what customers ask, all teams) and `heldout` (never trained on, all teams).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

SYSTEM = "Triage this support message. Answer in JSON."
TEAMS = ("account", "billing", "safety", "sales", "shipping", "technical")
URGENCIES = ("low", "normal", "high")
POOLS = ("train", "users", "heldout")

_DATA = Path(__file__).with_name("data")


@dataclass(frozen=True, slots=True)
class Truth:
    team: str
    urgency: str


@dataclass(frozen=True, slots=True)
class Case:
    """What a customer writes, and the answer that is right."""

    text: str
    truth: Truth


def load(pool: str) -> list[Case]:
    """The cases of one of `POOLS`, in the order of its file."""
    rows = [json.loads(line) for line in (_DATA / f"{pool}.jsonl").read_text("utf-8").splitlines()]
    return [Case(row["prompt"], Truth(**json.loads(row["completion"]))) for row in rows]


def messages_of(text: str) -> list[dict[str, str]]:
    """The chat that asks for one triage."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def answer_of(truth: Truth) -> str:
    """The right answer, as a model should write it."""
    return json.dumps({"team": truth.team, "urgency": truth.urgency}, separators=(",", ":"))


def judge(answer: str, truth: Truth) -> bool:
    """Whether an answer is JSON that says exactly the truth. Blanks around it and inside the JSON do not matter."""
    try:
        said = json.loads(answer)
    except ValueError:
        return False
    return bool(said == {"team": truth.team, "urgency": truth.urgency})
