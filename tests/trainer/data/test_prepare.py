"""`trainer data inspect` and `prepare` as people use them: the card, the files, what is refused, and a kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from adapters.examples import read_jsonl
from trainer.data.cli import app
from trainer.errors import InvalidConfig, InvalidData

CLI = CliRunner()


def called(*arguments: str | Path) -> Result:
    return CLI.invoke(app, list(map(str, arguments)), catch_exceptions=False)


def rows(path: Path, count: int = 60, *more: Any) -> Path:
    found = [
        {"prompt": f"question {n} of many", "completion": ("yes", "no")[n % 2], "user": n % 20} for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*found, *more]))
    return path


def card_of(*arguments: str | Path, status: int = 0) -> dict[str, Any]:
    result = called(*arguments, "--json")
    assert result.exit_code == status, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_inspect_counts_everything_and_goes_on_after_errors(tmp_path: Path):
    mail = {"prompt": "I am bob@example.com, where is it", "completion": "there", "note": "x"}
    bad = [{"prompt": "a"}] * 25
    file = rows(tmp_path / "rows.jsonl", 60, mail, {"prompt": "question 3 of many", "completion": "no"}, *bad)
    told = card_of("inspect", file, "--set", "columns.unit=user", "--set", "held_out_share=0", status=1)
    assert told["rows"] == {
        "from": {"from rows.jsonl": 87},
        "train": 61,
        "held_out": 0,
        "test": 0,
        "left_out": {"that cannot be read": 25, "exact duplicates": 1},
    }
    assert told["errors"]["rows"] == 25 and len(told["errors"]["first"]) == 20
    assert told["errors"]["first"][0].startswith(f"{file}:63: its keys (prompt) make no row")
    assert told["personal"]["found"] == {"EMAIL": 1} and told["columns_not_used"] == {"note": 1}
    assert told["personal"]["where"] == [f"{file}:61: EMAIL … I am <EMAIL>, where is it …"]
    assert told["labels"]["answers"] == {"yes": 30, "no": 31, "(1 others)": 1} and told["users"] == 20
    assert "bob@" not in json.dumps(told)


def test_inspect_is_readable_and_says_when_nobody_is_named(tmp_path: Path):
    result = called("inspect", rows(tmp_path / "rows.jsonl"))
    assert result.exit_code == 0 and "| train |" in result.stdout and "No row names a user" in result.stdout


def test_lengths_are_counted_in_the_base_models_tokens(tmp_path: Path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"?": 0}, "?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    file = rows(tmp_path / "rows.jsonl")
    told = card_of("inspect", file, "--model-path", tmp_path, "--set", "max_tokens=8")["lengths"]
    assert told["unit"] == "tokens" and told["quantiles"]["100%"] == 5 and told["over"] == 0
    assert sum(told["histogram"].values()) == 60


def test_prepare_writes_rows_and_card_and_what_came_in_is_what_went_out(tmp_path: Path):
    mail = {"prompt": "I am bob@example.com, where is it", "completion": "there"}
    file = rows(tmp_path / "rows.jsonl", 300, mail, {"prompt": "question 3 of many", "completion": "no"}, {"prompt": 1})
    out = tmp_path / "out"
    told = card_of("prepare", file, "--out", out, "--skip-bad")
    names = "answers.svg card.json card.md held_out.jsonl lengths.svg split.svg test.jsonl train.jsonl"
    assert sorted(path.name for path in out.iterdir()) == names.split()
    assert json.loads((out / "card.json").read_text()) == told
    came, left = told["rows"]["from"], told["rows"]["left_out"]
    kept = {name: list(read_jsonl((out / f"{name}.jsonl").open())) for name in ("train", "held_out", "test")}
    assert {name: len(found) for name, found in kept.items()} == {name: told["rows"][name] for name in kept}
    assert sum(came.values()) == 303 == sum(map(len, kept.values())) + sum(left.values())
    assert all(kept.values()) and "bob@" not in "".join(path.read_text() for path in out.iterdir())
    prompts = [{str(row.messages) for row in found} for found in kept.values()]
    assert not prompts[0] & prompts[1] and not prompts[0] & prompts[2] and not prompts[1] & prompts[2]
    assert all(f"({name}.svg)" in (out / "card.md").read_text() for name in ("split", "lengths", "answers"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_same_rows_are_prepared_to_the_same_bytes(tmp_path: Path):
    file = rows(tmp_path / "rows.jsonl")
    for name in ("one", "two"):
        card_of("prepare", file, "--out", tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_prepare_refuses_rows_it_cannot_read_and_writes_nothing(tmp_path: Path):
    file = rows(tmp_path / "rows.jsonl", 3, {"prompt": "a"}, {"completion": "b"})
    with pytest.raises(
        InvalidData, match=r"2 rows cannot be read, the first 2: .*:4: .*:5: .*: correct them, or --skip-bad"
    ):
        called("prepare", file, "--out", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_prepare_refuses_a_directory_that_holds_something(tmp_path: Path):
    with pytest.raises(InvalidData, match="is there already"):
        called("prepare", rows(tmp_path / "rows.jsonl"), "--out", tmp_path)


def test_a_config_names_the_files_and_the_flags_go_over_it(tmp_path: Path):
    rows(tmp_path / "rows.jsonl")
    config = tmp_path / "run.yaml"
    config.write_text("base_model: demo/m\nrun_dir: run\ndata:\n  train: rows.jsonl\n  columns: {unit: user}\n")
    assert card_of("inspect", "--config", config)["users"] == 20
    assert card_of("inspect", "--config", config, "--set", "data.held_out_share=0")["rows"]["held_out"] == 0
    with pytest.raises(InvalidConfig, match="no rows to train on"):
        called("inspect")


@pytest.mark.processes
def test_a_kill_leaves_nothing_that_looks_finished_and_the_next_start_clears_it_away(tmp_path: Path):
    file, out = rows(tmp_path / "rows.jsonl", 8_000), tmp_path / "out"
    command = [sys.executable, "-m", "trainer", "data", "prepare", str(file), "--out", str(out)]
    for reached in ("work", "train.jsonl"):
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            while child.poll() is None and not (tmp_path / ".out.draft" / reached).exists():
                time.sleep(0.002)
        finally:
            child.kill()
            child.wait()
        assert child.returncode == 0 or not out.exists()
        if out.exists():  # it was quicker than the kill
            shutil.rmtree(out)
    told = card_of("prepare", rows(file, 600), "--out", out)
    assert told["rows"]["from"] == {"from rows.jsonl": 600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows.jsonl"]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_memory_does_not_grow_with_the_rows(tmp_path: Path):
    chance, peaks = random.Random(0), []
    words = [f"{one}{other}" * 30 for one in ascii_lowercase for other in ascii_lowercase]
    for count in (5_000, 12_000):
        file = tmp_path / f"{count}.jsonl"
        with file.open("w") as lines:
            for n in range(count):
                text = " ".join(chance.choices(words, k=40))
                lines.write(json.dumps({"prompt": text, "completion": f"answer {n}"}) + "\n")
        command = [sys.executable, "-m", "trainer", "data", "inspect", str(file)]
        quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        child = os.posix_spawn(sys.executable, command, os.environ, file_actions=quiet)
        _, status, usage = os.wait4(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        peaks.append(usage.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 8, "MiB; the 7,000 rows more have 17"
