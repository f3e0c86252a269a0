"""The shapes that rows come in, each as the Examples it holds, and what of it is not learnt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapters.examples import Example
from trainer.data.rows import SILENT, TOOLS, Reading, examples_of
from trainer.data.turns import TOOL_CALL, BadRow

ASKED = [{"role": "user", "content": "hi"}]
GOOD = {"role": "assistant", "content": "hello"}
WORSE = {"role": "assistant", "content": "what?"}
PAIR = Example(messages=ASKED, completion="hello", kind="preference", rejected="what?")
DEAR = {"input": {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}}
SAID = [{"type": "text", "text": "hello"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "chosen": "hello", "rejected": "what?"},
        {"prompt": ASKED, "chosen": [GOOD], "rejected": [WORSE]},
        {"chosen": [*ASKED, GOOD], "rejected": [*ASKED, WORSE]},
        {"prompt": "hi", "chosen": [*ASKED, GOOD], "rejected": [*ASKED, WORSE], "score_chosen": 5},
        {"instruction": "hi", "input": "", "chosen": "hello", "rejected": "what?"},
        {
            "conversations": [{"from": "human", "value": "hi"}],
            "chosen": {"from": "gpt", "value": "hello"},
            "rejected": {"from": "gpt", "value": "what?"},
        },
        {"input": {"messages": ASKED}, "preferred_output": [GOOD], "non_preferred_output": [WORSE]},
        DEAR | {"output": SAID, "dispreferred_outputs": [[{"type": "text", "text": "what?"}]]},
    ],
)
def test_every_shape_of_a_pair_becomes_the_same_example(row: dict[str, Any]):
    assert examples_of(row).examples == [PAIR]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "completion": "hello", "label": True},
        {"prompt": ASKED, "completion": [GOOD], "label": "true"},
        {"prompt": "hi", "completion": "hello", "label": 1},
        {"messages": [*ASKED, GOOD], "label": True},
        DEAR | {"output": SAID, "metric_name": "thumb", "value": True},
    ],
)
def test_every_shape_of_a_label_becomes_the_same_example(row: dict[str, Any]):
    assert examples_of(row).examples == [Example(messages=ASKED, completion="hello", kind="label", label=True)]


def test_labels_that_are_numbers_need_the_number_from_which_on_they_are_good():
    row = {"prompt": "hi", "completion": "hello", "label": 3.5}
    with pytest.raises(BadRow, match=r"its label is a number \(3\.5\); say from which on it is good: data\.good_from"):
        examples_of(row)
    assert [examples_of(row, Reading(good_from=at)).examples[0].label for at in (3.0, 4.0)] == [True, False]


def test_each_answer_of_weight_1_is_a_row_with_what_came_before_it():
    second = [{"role": "user", "content": "and you?"}, {"role": "assistant", "content": "fine", "weight": 1}]
    chat = [*ASKED, GOOD | {"weight": 1}, *second, {"role": "user", "content": "bye"}, GOOD | {"weight": 0}]
    found = examples_of({"messages": chat})
    assert [(len(row.messages), row.completion) for row in found.examples] == [(1, "hello"), (3, "fine")]
    assert found.earlier == 1 and not any("weight" in turn for row in found.examples for turn in row.messages)


def test_without_weights_the_last_answer_is_learnt_and_the_others_are_counted():
    found = examples_of({"messages": [*ASKED, GOOD, *ASKED, WORSE]})
    assert [row.completion for row in found.examples] == ["what?"] and found.earlier == 1


def test_what_no_recipe_learns_from_is_left_under_a_reason():
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    silent = {"messages": [*ASKED, GOOD | {"weight": 0}]}
    assert examples_of({"messages": [*ASKED, GOOD], "tools": [{"type": "function"}]}).left == [TOOLS]
    assert examples_of({"messages": [*ASKED, call]}).left == [TOOL_CALL]
    assert examples_of(silent).left == [SILENT]
    assert examples_of(DEAR | {"output": [{"type": "tool_call", "name": "f"}]}).left == [TOOL_CALL]


def test_keys_that_nobody_reads_are_named():
    assert examples_of({"prompt": "hi", "completion": "x", "source": 1, "unit": "u"}).unused == {"source"}


def test_an_alpaca_row_keeps_its_history():
    row = {"instruction": "and now?", "output": "fine", "history": [["hi", "hello"]], "system": "be kind"}
    (found,) = examples_of(row).examples
    roles = [(turn["role"], turn["content"]) for turn in found.messages]
    assert roles == [("system", "be kind"), ("user", "hi"), ("assistant", "hello"), ("user", "and now?")]


def test_other_names_of_columns_are_told_once():
    row = {"text": "hi", "category": "hello", "user_id": 7}
    how = Reading(columns={"prompt": "text", "completion": "category", "unit": "user_id"})
    assert examples_of(row, how).examples == [Example(messages=ASKED, completion="hello", kind="seed", unit="7")]
    assert examples_of(row, how).unused == frozenset()


def test_a_tensorzero_inference_with_a_demonstration_is_a_correction_and_a_pair():
    row = {
        "id": "0190-1",
        "function_name": "greet",
        "variant_name": "b",
        "tags": {"user_id": "u1"},
        "input": json.dumps({"system": "be kind", **DEAR["input"]}),
        "output": json.dumps([{"type": "text", "text": "what?"}]),
        "value": json.dumps(SAID),
    }
    correction, pair = examples_of(row).examples
    assert correction.kind == "demonstration" and correction.completion == pair.completion == "hello"
    assert (pair.rejected, pair.unit, pair.alias, pair.variant) == ("what?", "u1", "greet", "b")
    assert correction.inference_id == "0190-1" and correction.messages[0]["content"] == "be kind"


def test_a_tensorzero_json_function_and_its_tools_are_read_as_texts_and_turns():
    asked = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [{"type": "tool_call", "id": "1", "name": "w", "arguments": {"at": "X"}}]},
        {"role": "user", "content": [{"type": "tool_result", "id": "1", "name": "w", "result": "sun"}]},
    ]
    (found,) = examples_of({"input": {"messages": asked}, "output": {"raw": '{"is":"sun"}', "parsed": {}}}).examples
    assert [turn["role"] for turn in found.messages] == ["user", "assistant", "tool"]
    assert found.messages[1]["tool_calls"][0]["function"] == {"name": "w", "arguments": '{"at": "X"}'}
    assert found.completion == '{"is":"sun"}'


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chosen": "a", "rejected": "b"}, "chosen and rejected have no prompt"),
        ({"chosen": [*ASKED, GOOD], "rejected": [GOOD, WORSE]}, "differ before their last turn"),
        ({"prompt": "ho", "chosen": [*ASKED, GOOD], "rejected": [*ASKED, WORSE]}, "the prompt is not the one"),
        ({"prompt": "hi", "chosen": "a", "rejected": ""}, "the rejected is empty"),
        ({"messages": [*ASKED, GOOD | {"weight": 0.5}]}, "the weight of a message is neither 0 nor 1"),
        ({"input": {"messages": ASKED}, "preferred_output": [GOOD, GOOD]}, "holds more than one turn"),
        ({"target_id": "1", "metric_name": "thumb", "value": True}, "feedback without its inference; join"),
        (DEAR | {"output": SAID, "metric_name": "stars", "value": 4}, "data.good_from"),
        ({"input": {"system": {"a": 1}, "messages": ASKED}, "output": SAID}, "the arguments of a template"),
        ({"instruction": "a", "output": "b", "history": ["x"]}, "history is not a list of pairs"),
        ({"prompt": "a", "completion": "b", "unit": [1]}, "neither text nor a whole number"),
    ],
)
def test_a_row_that_is_nearly_right_is_told_what_is_wrong(row: dict[str, Any], said: str):
    with pytest.raises(BadRow, match=said):
        examples_of(row)
