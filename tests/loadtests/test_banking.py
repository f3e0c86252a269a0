"""The banking story's data and its simulated customers: disjoint pools, stated noise, three poisoners. No torch."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from loadtests.banking import report, users
from loadtests.banking.crowd import Record
from loadtests.banking.questions import NoQuestions, Plan, Pools, Question, prepare

PLAN = Plan(intents=3, written=2, checked=1, users=4, questions=2, tested=2, seed=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four intents, the last one rarer than the others; one question of the test file is in train.csv, too."""
    write(tmp_path / "train.csv", [(f"{what} {n}?", what) for what in ("lost", "fees", "pin") for n in range(10)])
    with (tmp_path / "train.csv").open("a") as file:
        csv.writer(file).writerows([("rare 1?", "rare"), ("Lost, test 0", "lost"), ("LOST 3", "lost")])
    write(tmp_path / "test.csv", [(f"{what} test {n}?", what) for what in ("lost", "fees", "pin") for n in range(3)])
    return tmp_path


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "category"), *rows])


def everything(pools: Pools) -> list[Question]:
    return [*pools.written, *pools.checked, *pools.thumbs, *pools.pairs, *pools.test]


def test_no_question_is_in_two_pools_and_the_most_frequent_intents_are_asked(data: Path) -> None:
    pools = prepare(data, PLAN)
    assert pools.intents == ["fees", "lost", "pin"]
    asked = ["".join(filter(str.isalnum, one.text.lower())) for one in everything(pools)]
    assert len(set(asked)) == len(asked)
    assert {len(pools.written), len(pools.test)} == {6}
    assert (len(pools.checked), len(pools.thumbs), len(pools.pairs)) == (3, 8, 8)
    assert all("test" in one.text for one in pools.test)
    assert not any("test" in one.text for one in everything(pools)[: -len(pools.test)])


def test_the_same_plan_deals_the_same_questions_and_another_seed_others(data: Path) -> None:
    assert prepare(data, PLAN) == prepare(data, PLAN)
    assert prepare(data, PLAN).thumbs != prepare(data, Plan(3, 2, 1, 4, 2, 2, seed=2)).thumbs


def test_a_pool_is_saved_as_rows_of_a_prompt_with_the_intents_and_the_right_one(data: Path) -> None:
    pools = prepare(data, PLAN)
    lines = pools.save("test", data / "rows").read_text().splitlines()
    row = json.loads(lines[0])
    assert [message["role"] for message in row["messages"]] == ["system", "user"]
    assert "fees, lost, pin" in row["messages"][0]["content"]
    assert (row["messages"][1]["content"], row["completion"]) == (pools.test[0].text, pools.test[0].intent)


def test_a_folder_without_the_files_or_with_too_few_questions_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(NoQuestions, match="needed"):
        prepare(data, Plan(intents=3, written=2, checked=1, users=40, questions=2))
    write(tmp_path / "train.csv", [])
    with pytest.raises(NoQuestions, match="no rows"):
        prepare(tmp_path, PLAN)


def test_customers_judge_by_the_intent_and_err_as_often_as_is_said() -> None:
    turns = users.turns([Question(f"q{n}", "lost") for n in range(2000)], Plan(users=100, questions=20), "a")
    right = [users.thumb(turn, " lost\n") for turn in turns]
    wrong = [users.thumb(turn, "lost or fees") for turn in turns]
    assert 0.03 < right.count(False) / len(right) < 0.07
    assert right == [not up for up in wrong]


def test_three_poisoners_turn_one_thumb_in_twenty_round_and_nobody_else_any() -> None:
    lines = [{"user": f"u{n % 60}", "right": n % 7 > 0, "up": n % 7 > 0} for n in range(600)]
    thumbs = users.poisoned(lines, seed=7)
    poisoners = {line["user"] for line, up in zip(lines, thumbs, strict=True) if up is not line["up"]}
    assert len(poisoners) == 3
    theirs = [(line, up) for line, up in zip(lines, thumbs, strict=True) if line["user"] in poisoners]
    assert [up is not line["right"] for line, up in theirs] == [True] * 30
    assert thumbs == users.poisoned(lines, seed=7) != users.poisoned(lines, seed=8)


def test_the_right_one_of_two_answers_is_preferred_and_two_wrong_ones_may_be_corrected() -> None:
    sure = users.Turn(0, "u", Question("q", "lost"), slip=False, corrects=True)
    clumsy = users.Turn(0, "u", Question("q", "lost"), slip=True, corrects=False)
    assert users.preferred(sure, "fees", "lost") == 1
    assert users.preferred(clumsy, "fees", "lost") == 0
    assert users.preferred(sure, "lost", "lost") is users.preferred(sure, "fees", "pin") is None
    assert users.correction(sure, "fees") == "lost"
    assert users.correction(sure, "lost") is users.correction(clumsy, "fees") is None


def test_a_record_that_was_cut_short_forgets_its_last_line_only(tmp_path: Path) -> None:
    record = Record(tmp_path / "asked.jsonl")
    record.add({"turn": 0})
    with (tmp_path / "asked.jsonl").open("a") as file:
        file.write('{"turn": 1, "us')
    again = Record(tmp_path / "asked.jsonl")
    again.add({"turn": 1})
    assert Record(tmp_path / "asked.jsonl").lines == [{"turn": 0}, {"turn": 1}]


def page(verdict: str, low: float, against: str = "bank/intents@1") -> dict[str, object]:
    figures = {"candidate.macro_f1": 0.8, "incumbent.macro_f1": 0.7}
    figures |= {"difference.macro_f1": 0.1, "difference.macro_f1.low": low, "difference.macro_f1.high": 0.2}
    told = {"verdict": verdict, "reason": "said", "compared_with": against, "ref": "bank/intents@2", "figures": figures}
    return {**told, "lineage": {"examples": 9, "feedback": 9}, "seconds": 61.0, "peak_memory_bytes": 3 * 2**30}


def test_the_report_prints_refusals_too_and_claims_only_what_was_measured(data: Path) -> None:
    pages = {"sft": page("accepted", 0.5, "base"), "kto": page("refused", -0.1)}
    pages |= {"poisoned": page("accepted", 0.01), "dpo": page("refused", -0.2)}
    assert all(claim.held for claim in report.claims(pages))
    told = report.markdown(pages, prepare(data, PLAN), PLAN)
    assert told.count("| refused") == 2
    assert "61 s, 3.0 GiB" in told
    assert "+0.100 (-0.200 to +0.200)" in told
    harmful = report.claims(pages | {"sft": page("accepted", 0.1), "poisoned": page("accepted", -0.01)})
    assert [claim.held for claim in harmful] == [False, True, True, False]
