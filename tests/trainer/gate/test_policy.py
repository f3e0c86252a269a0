"""The policy as a table: evidence in, verdict and sentence out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adapters.examples import Example
from trainer import config
from trainer.errors import InvalidData
from trainer.gate import require_rows
from trainer.gate.parity import Served, Trained, compare
from trainer.gate.policy import Compared, Drift, Evidence, Parity, judge
from trainer.gate.statistics import Difference, SignTest
from trainer.progress import Silent
from trainer.settings.gate import Policy

BETTER = Compared("exact_match", 0.81, 0.74, Difference(0.07, 0.02, 0.12, 0.03, 150, 150), SignTest(14, 4, 0.015))
CALM = Drift(length=40, refusals=0.0, repetition=0.0)
KEPT = Compared("token_f1", 0.47, 0.49, Difference(-0.02, -0.05, 0.01, 0.02, 60, 60))
GOOD = Evidence("acme/support@1", 150, BETTER, KEPT, CALM, CALM, 38.0, Parity(8, 0.02, 0.15, 0))


def test_the_reason_is_a_sentence_with_its_numbers():
    found = judge(GOOD, Policy())
    assert found.verdict == "accepted"
    assert found.reason == "exact match 0.81 against 0.74 of acme/support@1 (+0.07, 95 % from +0.02): accepted"


def differing(**changed: Any) -> Compared:
    between = replace(BETTER.difference, **{k: v for k, v in changed.items() if k != "test"})
    return replace(BETTER, difference=between, test=changed.get("test", BETTER.test))


CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("nothing to decide by", {"rows": 0, "main": None}, {}, "no held-out rows; hold out at least 20"),
    ("no such figure", {"main": None}, {"figure": "preference_accuracy"}, "have no preference accuracy; choose"),
    ("too few rows", {"main": differing(rows=12, units=12)}, {}, "12 rows tell too little: hold out 8 more"),
    ("too few users", {"main": differing(units=3)}, {}, "3 users tell too little: hold out 17 more"),
    ("worse", {"main": differing(value=-0.01, low=-0.05)}, {}, "it is not better"),
    ("better by less", {}, {"by": 0.1}, "it is not better by more than 0.1"),
    ("perhaps better", {"main": differing(low=-0.01)}, {}, "that may be chance; about 151 rows would show it, 1 more"),
    (
        "by chance",
        {"main": differing(test=SignTest(5, 2, 0.23))},
        {},
        "5 better and 2 worse may be chance (McNemar's p 0.23); about 316 rows",
    ),
    ("not by so much", {}, {"by": 0.05}, "more than +0.05 is not shown"),
    ("forgetful", {"regression": replace(KEPT, difference=replace(KEPT.difference, value=-0.3))}, {}, "it loses 0.30"),
    ("long-winded", {"drift": replace(CALM, length=400)}, {}, "10.0 times the usual 40, where 1.5 times"),
    ("refusing", {"drift": replace(CALM, refusals=0.2)}, {}, "it refuses 20% of the answers after 0%, where 5% more"),
    ("repeating", {"drift": replace(CALM, repetition=0.2)}, {}, "it repeats itself in 20% of the answers"),
    ("other weights", {"parity": Parity(8, 0.4, 0.15, 0)}, {}, "PEFT and the engine differ by 0.400 nats a token"),
    ("other answers", {"parity": Parity(8, 0.02, 0.15, 2)}, {}, "2 of 8 greedy answers of PEFT and of the engine"),
]


@pytest.mark.parametrize(("name", "evidence", "policy", "said"), CASES, ids=[case[0] for case in CASES])
def test_what_is_worse_or_unknown_is_refused_and_says_why(
    name: str, evidence: dict[str, Any], policy: dict[str, Any], said: str
):
    found = judge(replace(GOOD, **evidence), Policy.model_validate(policy))
    assert found.verdict == "refused"
    assert said in found.reason


@pytest.mark.parametrize(
    ("evidence", "policy"),
    [
        ({"parity": None}, {}),  # switched off
        ({"regression": replace(KEPT, difference=replace(KEPT.difference, value=-0.3))}, {"may_lose": None}),
        ({"drift": Drift(400, 0.2, 0.2)}, {"longest": None, "refusals": None, "repetition": None}),
        ({"drift": replace(CALM, length=55), "drift_other": replace(CALM, length=4)}, {}),  # the references are as long
        ({"main": differing(value=-0.01, low=-0.03, test=SignTest(3, 4, 0.8))}, {"by": -0.05}),  # no worse will do
        ({"main": differing(low=0.001)}, {"confidence": 0.9}),
    ],
)
def test_what_the_policy_does_not_mind_is_accepted(evidence: dict[str, Any], policy: dict[str, Any]):
    assert judge(replace(GOOD, **evidence), Policy.model_validate(policy)).verdict == "accepted"


def test_every_objection_is_named_at_once():
    found = judge(replace(GOOD, drift=replace(CALM, refusals=0.5), parity=Parity(8, 1.0, 0.15, 0)), Policy())
    assert "it refuses 50%" in found.reason and "1.000 nats" in found.reason


SERVED = Served(prompt=[1], reference=[2, 3], logprobs=(-1.0, -2.0), greedy=[4, 5, 6])


@pytest.mark.parametrize(
    ("gaps", "diverged"),
    [
        ([0.0, 0.0, 0.0], 0),  # the same tokens
        ([0.0, 0.3, 9.0], 0),  # a near tie; what follows another token is another text
        ([0.0, 0.7, 0.0], 1),  # no tie: another model
    ],
)
def test_greedy_answers_may_part_at_a_near_tie_only(gaps: list[float], diverged: int):
    found = compare([SERVED], [Trained([-1.1, -1.8], gaps)], tolerance=0.15)
    assert found == Parity(1, pytest.approx(0.15), 0.15, diverged)


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_too_few_rows_for_any_verdict_are_told_before_training():
    given = {"base_model": "m", "run_dir": "r", "data.train": "a.jsonl", "gate.rows": 100}
    given |= {"gateway.url": "http://x", "publish.tenant": "a", "publish.name": "b"}
    settings, voice = config.load(None, given.items(), environ={}), Said()
    rows = [
        Example(messages=[{"role": "user", "content": f"{n}"}], completion="x", unit=f"u{n % 20}") for n in range(40)
    ]
    require_rows(settings, rows, voice)
    assert voice.lines == []
    require_rows(settings, rows[:19], voice)
    assert voice.lines == ["the gate will refuse this: it decides by 20 users' rows or more, and has 19 users'"]
    with pytest.raises(InvalidData, match=r"no held-out rows to decide by: raise data\.held_out_share"):
        require_rows(settings, [], voice)
