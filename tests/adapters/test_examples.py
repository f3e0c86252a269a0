"""Rows survive the trip between the gateway and the trainer, and a bad one is named by file and line."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import InvalidExample
from adapters.examples import Example, dataset_digest, read_jsonl, write_jsonl

words = st.text(st.characters(codec="utf-8"), max_size=20)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"])},
        optional={"content": words | st.none(), "name": words},
    ),
    min_size=1,
    max_size=3,
)
EPOCH, LATER = datetime.fromisoformat("1970-01-02"), datetime.fromisoformat("2100-01-01")
origins = st.fixed_dictionaries(
    {"messages": messages, "completion": words},
    optional={
        "weight": st.floats(0.001, 1000),
        "inference_id": words,
        "feedback_ids": st.lists(words, max_size=2),
        "alias": words,
        "variant": words,
        "adapter": words,
        "propensity": st.floats(0.001, 1),
        "unit": words,
        "created_at": st.datetimes(EPOCH, LATER, timezones=st.timezones()),
    },
)
kinds = (
    st.fixed_dictionaries({"kind": st.sampled_from(["demonstration", "seed"])})
    | st.fixed_dictionaries({"kind": st.just("label"), "label": st.booleans()})
    | st.fixed_dictionaries({"kind": st.just("preference"), "rejected": words})
)
examples = st.builds(lambda origin, kind: Example(**origin, **kind), origins, kinds)


@given(st.lists(examples, max_size=4))
def test_rows_are_read_as_they_were_written(rows: list[Example]) -> None:
    file = io.StringIO()
    assert write_jsonl(rows, file) == len(rows)
    file.seek(0)
    assert list(read_jsonl(file)) == rows
    assert list(read_jsonl(file.getvalue().encode().splitlines())) == rows


@given(st.lists(examples, max_size=4))
def test_a_row_is_one_line_for_every_reader(rows: list[Example]) -> None:
    """str.splitlines and httpx's iter_lines end a line at U+2028, U+2029 and U+0085 too."""
    file = io.StringIO()
    write_jsonl(rows, file)
    assert list(read_jsonl(file.getvalue().splitlines())) == rows


@given(st.lists(examples, min_size=1, max_size=4))
def test_the_digest_is_that_of_the_rows_in_their_order(rows: list[Example]) -> None:
    file = io.StringIO()
    write_jsonl(rows, file)
    again = list(read_jsonl(file.getvalue().splitlines()))
    assert dataset_digest(rows) == dataset_digest(again)
    assert dataset_digest(rows) != dataset_digest([*rows, rows[0]])
    if rows != rows[::-1]:
        assert dataset_digest(rows) != dataset_digest(rows[::-1])


GOOD = '{"messages":[{"role":"user","content":"hi"}],"completion":"hello"}'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"completion": "x"}', "messages: Field required"),
        ('{"messages": [], "completion": "x"}', "messages: List should have at least 1 item"),
        ('{"messages": [{"role": "robot"}], "completion": "x"}', "message 1 has no role among"),
        ('{"messages": [{"role": "user", "content": 7}], "completion": "x"}', "content of message 1"),
        (GOOD[:-1] + ', "kind": "label"}', 'goes with kind "label"'),
        (GOOD[:-1] + ', "label": true}', 'goes with kind "label"'),
        (GOOD[:-1] + ', "kind": "label", "label": "yes"}', "label: Input should be a valid boolean"),
        (GOOD[:-1] + ', "kind": "preference"}', 'goes with kind "preference"'),
        (GOOD[:-1] + ', "weight": 0}', "weight: Input should be greater than 0"),
        (GOOD[:-1] + ', "weight": NaN}', "NaN is not a JSON number"),
        (GOOD[:-1] + ', "propensity": 1.5}', "propensity: Input should be less than or equal to 1"),
        (GOOD[:-1] + ', "completion": "other"}', "'completion' occurs twice"),
        (GOOD[:-1] + ', "prompt": "x"}', "prompt: Extra inputs are not permitted"),
        (GOOD.replace("hello", "\\ud800"), "not UTF-8"),
    ],
)
def test_a_bad_row_is_named_by_its_line_with_a_remedy(line: str, says: str) -> None:
    rows = read_jsonl(["\ufeff" + GOOD, "", line, GOOD], source="train.jsonl")
    assert next(rows).completion == "hello"
    with pytest.raises(InvalidExample) as caught:
        next(rows)
    sentence = str(caught.value)
    assert sentence.startswith("train.jsonl:3: ") and says in sentence
    assert sentence.endswith(("correct this line, or remove it.", "save the file as UTF-8."))


def test_bytes_that_are_no_utf8_are_named_by_their_line() -> None:
    with pytest.raises(InvalidExample, match=r"data:1: it is not UTF-8 text; save the file as UTF-8\."):
        list(read_jsonl([GOOD.encode().replace(b"hello", b"h\xe9llo")], source="data"))


@given(st.text(max_size=100) | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x)).map(str))
def test_any_line_is_a_row_or_an_error_with_its_line(line: str) -> None:
    try:
        list(read_jsonl([line], source="f"))
    except InvalidExample as error:
        assert str(error).startswith("f:1: ")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00", "2026-01-01T00:00:00"])
def test_a_moment_outside_the_calendar_or_without_a_zone_is_refused(moment: str) -> None:
    with pytest.raises(InvalidExample, match="created_at"):
        list(read_jsonl([GOOD[:-1] + f', "created_at": "{moment}"}}']))


def test_a_row_may_carry_what_a_chat_request_may() -> None:
    """Parts, tool calls and tool answers pass through: what to do with them is the trainer's business."""
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    assert next(read_jsonl([Example(messages=chat, completion="42").to_json()])).messages == chat
