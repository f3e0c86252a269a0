"""Who is on which side, and what leaves: sticky, disjoint by user, and every row counted."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.examples import Example
from trainer import data
from trainer.data import LEAKED, LEFT_OUT, LIKE, NEAR, TWICE, USER, card
from trainer.data.survey import UNREADABLE, Surveyor
from trainer.errors import InvalidData
from trainer.settings.data import DataSettings, GatewayExport

LONG = "the courier says that my parcel with the blue chair was left at the door of house number nine on monday"
LIVE = GatewayExport(alias="support")


def row(text: str, answer: str = "thanks", **more: Any) -> Example:
    return Example(messages=[{"role": "user", "content": text}], completion=answer, **more)


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in rows), "utf-8")
    return path


TEXTS = st.sampled_from(["where is it", "where is IT?", "no", LONG, f"{LONG} morning", f"{LONG}!"])
ROWS = st.lists(
    st.builds(
        row,
        TEXTS,
        st.sampled_from(["thanks", "a word", "another"]),
        unit=st.none() | st.integers(0, 12).map(str),
        kind=st.sampled_from(["seed", "demonstration"]),
    ),
    min_size=1,
    max_size=25,
)


def sides_of(found: data.Dataset) -> dict[str, set[str]]:
    named = {"train": found.train, "held out": found.held_out, "test": found.test}
    return {name: {row.unit for row in rows if row.unit is not None} for name, rows in named.items()}


@settings(deadline=None)  # the first one imports datasketch
@given(ROWS, ROWS)
def test_users_stay_on_their_side_whatever_is_added_and_every_row_is_counted(
    before: list[Example], added: list[Example]
):
    wanted = DataSettings(gateway=LIVE, held_out_share=0.3, test_share=0.3)
    seen: dict[str, str] = {}
    for rows in (before, added + before):
        try:
            found = data.read(wanted, rows)
        except InvalidData:
            continue  # nobody is left to train on
        on = [*found.train, *found.held_out, *found.test]
        assert len(on) + sum(count for why, count in found.counts.items() if why in LEFT_OUT) == len(rows)
        assert len({example.to_json() for example in on if example.kind == "seed"}) <= len(on)
        for side, units in sides_of(found).items():
            assert all(seen.setdefault(unit, side) == side for unit in units)


@settings(deadline=None)
@given(st.permutations(range(12)), st.sampled_from(["sft", "dpo", "kto"]))
def test_each_recipe_gets_the_rows_it_learns_from_and_the_others_are_counted(order: list[int], recipe: str):
    rows = [row(f"{n}", kind="label", label=n % 2 == 0) for n in range(4)]
    rows += [row(f"{n}", kind="preference", rejected="x") for n in range(4, 8)] + [row(f"{n}") for n in range(8, 12)]
    found = data.read(DataSettings(gateway=LIVE, held_out_share=0), [rows[n] for n in order], recipe=recipe)
    learnt = sorted(int(example.messages[0]["content"]) for example in found.train)
    assert learnt == {"sft": [0, 2, 8, 9, 10, 11], "dpo": [4, 5, 6, 7], "kto": [0, 1, 2, 3]}[recipe]
    assert sum(count for why, count in found.counts.items() if why in LEFT_OUT) == 12 - len(learnt)


def test_near_duplicates_count_as_one_and_other_answers_do_not():
    rows = [
        row(f"{LONG} and {LONG[:60]}"),
        row(f"{LONG}, and {LONG[:60].upper()}!"),
        row(f"{LONG} and {LONG[:60]}", "no"),
    ]
    found = data.read(DataSettings(gateway=LIVE, held_out_share=0), rows)
    assert found.train == [rows[0], rows[2]] and found.counts[NEAR] == 1
    exact = data.read(DataSettings(gateway=LIVE, held_out_share=0, near_duplicates=None), rows)
    assert exact.train == rows


def test_what_the_held_out_side_holds_leaves_the_trained_one(tmp_path: Path):
    kept = written(tmp_path / "kept.jsonl", {"prompt": LONG, "completion": "x", "unit": "u1"})
    files = written(
        tmp_path / "rows.jsonl",
        {"prompt": LONG, "completion": "y"},
        {"prompt": f"{LONG}!", "completion": "z"},
        {"prompt": "hello there", "completion": "z", "unit": "u1"},
        {"prompt": "hello", "completion": "z", "unit": "u2"},
        {"prompt": "hello", "completion": "z", "unit": "u3"},
    )
    found = data.read(DataSettings(train=[files], held_out=[kept]))
    assert [example.unit for example in found.train] == ["u2"] and len(found.held_out) == 1
    assert found.counts == {"from rows.jsonl": 5, "from kept.jsonl": 1, LEAKED: 1, LIKE: 1, USER: 1, TWICE: 1}


def test_a_long_instruction_does_not_make_everything_under_it_alike():
    texts = [f"{LONG * 12} Classify this: {n * 7919} {n * 104729}" for n in range(120)]
    found = data.read(DataSettings(gateway=LIVE, held_out_share=0), [row(text, "card") for text in texts])
    assert len(found.train) == 120


def test_all_answers_of_one_chat_are_on_one_side(tmp_path: Path):
    def chat(n: int) -> dict[str, Any]:
        turns = [
            ({"role": "user", "content": f"{n} {k}"}, {"role": "assistant", "content": f"{k}", "weight": 1})
            for k in range(3)
        ]
        return {"messages": [message for turn in turns for message in turn]}

    file = written(tmp_path / "chats.jsonl", *map(chat, range(60)))
    found = data.read(DataSettings(train=[file], held_out_share=0.3))
    first = [{example.messages[0]["content"] for example in rows} for rows in (found.train, found.held_out)]
    assert not first[0] & first[1] and len(found.train) + len(found.held_out) == 180


def test_a_tolerant_survey_goes_on_after_bad_rows_and_counts_them(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"prompt": "a", "completion": "b"}\n\xff\xfe\n[]\n{"prompt": "c", "completion": "d"}\nnull\n')
    found = Surveyor(DataSettings(train=[file]), tmp_path, tolerant=True).survey()
    assert found.outcome()[UNREADABLE] == 3 and found.sources == {"from rows.jsonl": 5}
    assert [error.split(": ")[0] for error in found.profile.errors] == [f"{file}:{n}" for n in (2, 3, 5)]


def test_an_answer_judged_both_ways_is_told():
    rows = [row("a", kind="label", label=label, unit=f"{label}{n}") for n in range(2) for label in (True, False)]
    found = data.read(DataSettings(gateway=LIVE, held_out_share=0), rows, recipe="kto")
    assert found.survey is not None and found.survey.contradictions == 1
    assert [example.label for example in found.train] == [True, False]


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst"])
def test_compressed_files_hold_the_same_rows(tmp_path: Path, ending: str):
    import pyarrow

    rows = written(tmp_path / "rows.jsonl", *({"prompt": f"{n}", "completion": "x"} for n in range(100)))
    packed = tmp_path / f"rows.{ending}"
    with pyarrow.CompressedOutputStream(str(packed), "gzip" if ending.endswith("gz") else "zstd") as file:
        file.write(rows.read_bytes())
    assert list(data.read_file(packed)) == list(data.read_file(rows))
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(InvalidData, match=r"rows\.jsonl"):
        list(data.read_file(packed))


def test_what_is_masked_is_told(tmp_path: Path):
    rows = [row("I am bob@example.com"), row("hello")]
    found = data.read(DataSettings(gateway=LIVE, held_out_share=0), rows)
    assert found.train[0].messages[0]["content"] == "I am <EMAIL>" and found.counts[data.MASKED] == 1
    seen = data.read(DataSettings(gateway=LIVE, held_out_share=0, personal="count"), rows)
    assert seen.train == rows and data.MASKED not in seen.counts


def test_a_runs_card_is_written_from_what_was_read(tmp_path: Path):
    rows = [row(f"{n}", kind="label", label=n % 3 == 0, unit=f"u{n}") for n in range(40)]
    wanted = DataSettings(gateway=LIVE)
    found = data.read(wanted, rows, recipe="kto")
    assert found.survey is not None
    told = card.write(tmp_path / "data", found.survey, wanted)
    assert told["rows"]["train"] == len(found.train) and told["labels"]["judged"] == {"good": 14, "bad": 26}
    pictures = {"answers.svg", "lengths.svg", "split.svg"}
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"card.json", "card.md", *pictures}


@settings(deadline=None)
@given(
    st.sampled_from(["jsonl", "csv", "parquet", "jsonl.gz", "jsonl.zst"]),
    st.binary(max_size=60) | st.text('prompt,completion\n"\0\r{}[]:é', max_size=60).map(str.encode),
)
def test_any_bytes_are_rows_or_errors_that_say_where(ending: str, content: bytes):
    with TemporaryDirectory() as directory:
        file = Path(directory, f"rows.{ending}")
        file.write_bytes(content)
        try:
            found = Surveyor(DataSettings(train=[file], near_duplicates=None), file.parent, tolerant=True).survey()
        except InvalidData as error:
            assert str(file) in str(error)
        else:
            assert sum(found.sources.values()) == sum(found.outcome().values())
