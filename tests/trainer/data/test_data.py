"""Rows in every shape and file, how bad ones are refused, what is not trained on, and the sticky split."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.examples import Example, write_jsonl
from trainer.data import BAD, LEAKED, TWICE, is_held_out, read, read_file
from trainer.data.rows import BadRow, Reading, examples_of
from trainer.errors import InvalidData
from trainer.settings.data import DataSettings

USER = [{"role": "user", "content": "hi"}]


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def pairs(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "completion": "hello"},
        {"prompt": USER, "completion": [{"role": "assistant", "content": "hello"}]},
        {"messages": [*USER, {"role": "assistant", "content": "hello"}]},
        {"instruction": "hi", "input": "", "output": "hello"},
        {"instruction": "hi", "output": "hello", "source": "somebody"},
        {"messages": USER, "completion": "hello", "kind": "seed"},
    ],
)
def test_every_shape_becomes_the_same_example(row: dict[str, Any]):
    assert examples_of(row).examples == [Example(messages=USER, completion="hello", kind="seed")]


def test_a_system_prompt_is_put_before_chats_that_bring_none():
    with_one = {"messages": [{"role": "system", "content": "mine"}, *USER, {"role": "assistant", "content": "x"}]}
    yours = Reading(system="yours")
    assert examples_of(with_one, yours).examples[0].messages[0]["content"] == "mine"
    assert examples_of({"prompt": "hi", "completion": "x"}, yours).examples[0].messages[0]["content"] == "yours"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("nonsense", "it is not JSON"),
        ('{"prompt": "a", "prompt": "b", "completion": "c"}', "the key 'prompt' occurs twice"),
        ("[1]", "it is not an object"),
        ({"question": "a", "answer": "b"}, r"its keys \(answer, question\) make no row; rename them"),
        ({"prompt": "a", "completion": " "}, "the completion is empty"),
        ({"prompt": "a", "completion": None}, "the completion is not text"),
        ({"messages": USER}, "the assistant's answer must be the last"),
        ({"messages": [{"role": "narrator", "content": "x"}], "completion": "y"}, "message 1 has no role among"),
        ({"prompt": "a", "completion": "b", "weight": -1}, "weight: Input should be greater than 0"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line_with_a_remedy(tmp_path: Path, row: Any, said: str):
    file = jsonl(
        tmp_path / "rows.jsonl",
        {"prompt": "a", "completion": "b"},
        "\n",
        row if isinstance(row, str) else json.dumps(row),
    )
    with pytest.raises(InvalidData, match=rf"rows\.jsonl:3: .*{said}.*: correct this line, or remove it\.$"):
        list(read_file(file))


def test_csv_and_parquet_hold_the_same_rows(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    rows = pairs(("a, b", "c"), ("d\ne", "ü"))
    csv, parquet = tmp_path / "rows.csv", tmp_path / "rows.parquet"
    csv.write_text('\ufeffprompt,completion\n"a, b",c\n"d\ne",ü\n', "utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), parquet)
    plain = list(read_file(jsonl(tmp_path / "rows.jsonl", *rows)))
    assert list(read_file(csv)) == list(read_file(parquet)) == plain


def test_columns_without_names_are_none_of_ours(tmp_path: Path):
    (tmp_path / "rows.csv").write_text(",prompt,completion,\n0,a,b,\n1,c,d,\n", "utf-8")  # as pandas numbers rows
    assert [row.completion for row in read_file(tmp_path / "rows.csv")] == ["b", "d"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", b"prompt,completion\na,b,c\n", r"rows\.csv:2: more fields"),
        ("rows.csv", b"prompt,prompt,completion\na,b,c\n", r"rows\.csv:1: two columns are named 'prompt'"),
        ("rows.csv", b'prompt,completion\na,"b\n', r"rows\.csv:2: unexpected end of data"),
        ("rows.parquet", b"PAR1 not", "is not a Parquet file"),
        ("rows.jsonl", b'{"prompt": "\xff"}\n', "is not UTF-8 text"),
        ("rows.txt", b"", "is of no known kind: name a file that ends in .jsonl, .csv, .parquet"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, name: str, content: bytes, said: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidData, match=said):
        list(read_file(tmp_path / name))


def test_an_absent_file_is_refused(tmp_path: Path):
    with pytest.raises(InvalidData, match="No such file"):
        list(read_file(tmp_path / "none.jsonl"))


def test_rows_that_are_not_trained_on_are_counted_by_reason(tmp_path: Path):
    rows = jsonl(tmp_path / "rows.jsonl", *pairs(("a", "1"), ("b", "2"), ("a", "1"), ("kept", "3")))
    kept = jsonl(tmp_path / "kept.jsonl", *pairs(("kept", "other")))
    live = io.StringIO()
    asked = [{"role": "user", "content": "live"}]
    write_jsonl(
        [
            Example(messages=asked, completion="bad", kind="label", label=False, inference_id="1"),
            Example(messages=asked, completion="good", kind="label", label=True, inference_id="2"),
            Example(messages=asked, completion="better", inference_id="1"),
        ],
        live,
    )
    found = read(DataSettings(train=[rows], held_out=[kept]), live.getvalue().splitlines(keepends=True))
    assert [row.completion for row in found.train] == ["1", "2", "good", "better"]
    assert [row.completion for row in found.held_out] == ["other"]
    assert found.counts == {
        "from rows.jsonl": 4,
        "from kept.jsonl": 1,
        "from the gateway": 3,
        BAD: 1,
        TWICE: 1,
        LEAKED: 1,
    }


def test_nothing_to_train_on_is_refused(tmp_path: Path):
    rows = jsonl(tmp_path / "rows.jsonl", {"prompt": "a", "completion": "b", "label": False})
    with pytest.raises(InvalidData, match="there is no row to train on"):
        read(DataSettings(train=[rows]))


def test_a_prompt_held_out_once_stays_held_out_whatever_is_added(tmp_path: Path):
    many = pairs(*((f"question {n}", "x") for n in range(300)))
    first = read(DataSettings(train=[jsonl(tmp_path / "a.jsonl", *many[:100])], held_out_share=0.2))
    later = read(DataSettings(train=[jsonl(tmp_path / "b.jsonl", *reversed(many))], held_out_share=0.2))
    assert {str(row.messages) for row in first.held_out} < {str(row.messages) for row in later.held_out}
    assert 40 <= len(later.held_out) <= 80


def test_the_rows_of_one_unit_are_never_on_both_sides():
    rows = [
        Example(messages=[{"role": "user", "content": str(n)}], completion="x", unit=f"u{n % 40}") for n in range(400)
    ]
    sides = {(row.unit, is_held_out(row, 0.3)) for row in rows}
    assert len(sides) == 40 and {side for _, side in sides} == {True, False}


@given(st.floats(0, 0.9), st.floats(0, 0.9), st.text(max_size=20))
def test_a_larger_share_only_adds_to_what_is_held_out(one: float, other: float, unit: str):
    row = Example(messages=USER, completion="x", unit=unit)
    assert is_held_out(row, min(one, other)) <= is_held_out(row, max(one, other))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["prompt", "completion", "messages", "instruction", "input", "output", "system", "unit", "weight", "label", "kind"]
)
TURNS = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": JSON}))


@given(st.dictionaries(KEYS, JSON | TURNS), st.none() | st.floats(0, 5))
def test_any_row_is_examples_or_a_bad_row_and_nothing_else(row: dict[str, Any], good_from: float | None):
    try:
        found = examples_of(row, Reading(system="s", good_from=good_from))
    except BadRow as error:
        assert str(error)
    else:
        assert found.examples or found.left
        assert [Example.model_validate_json(example.to_json()) for example in found.examples] == found.examples
