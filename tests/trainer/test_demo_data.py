"""The demo's task: its pools are clean, and what the trainer reads is what the demo asks and judges."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from loadtests.demo import triage
from trainer import config, data

CONFIG = Path("loadtests/demo/triage.yaml")


def test_no_message_is_in_two_pools_or_twice_in_one():
    messages = [" ".join(case.text.lower().split()) for pool in triage.POOLS for case in triage.load(pool)]
    assert len(messages) == len(set(messages)) >= 400


@pytest.mark.parametrize("pool", triage.POOLS)
def test_every_truth_is_one_of_the_known_ones(pool: str):
    cases = triage.load(pool)
    assert {case.truth.team for case in cases} <= set(triage.TEAMS)
    assert {case.truth.urgency for case in cases} == set(triage.URGENCIES)
    assert all(10 <= len(case.text) <= 140 for case in cases)
    assert max(Counter(case.truth for case in cases).values()) < len(cases) / 4


def test_users_ask_what_the_first_round_has_never_seen():
    seen = {case.truth.team for case in triage.load("train")}
    assert {case.truth.team for case in triage.load("users")} - seen == {"safety"}
    assert {case.truth.team for case in triage.load("users")} == {case.truth.team for case in triage.load("heldout")}


def test_the_trainer_reads_the_prompts_that_users_send():
    settings = config.load(CONFIG, [("run_dir", "unused")], environ={})
    found = data.read(settings.data)
    for rows, pool in ((found.train, "train"), (found.held_out, "heldout")):
        cases = triage.load(pool)
        assert [row.messages for row in rows] == [triage.messages_of(case.text) for case in cases]
        assert [row.completion for row in rows] == [triage.answer_of(case.truth) for case in cases]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"team":"sales","urgency":"low"}', True),
        (' { "urgency": "low", "team": "sales" }\n', True),
        ('{"team":"sales","urgency":"high"}', False),
        ('{"team":"sales","urgency":"low","note":"?"}', False),
        ('{"team":"sales","urgency":"low"} I think', False),
        ('["sales","low"]', False),
        ("", False),
    ],
)
def test_only_the_exact_truth_is_judged_right(answer: str, right: bool):
    assert triage.judge(answer, triage.Truth("sales", "low")) is right
