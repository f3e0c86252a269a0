"""`trainer validate` and the refusals of `trainer run`, as a person meets them. Nothing here loads torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.tiny import write_rows
from trainer.cli import main

Captured = pytest.CaptureFixture[str]


def settings(*more: str) -> list[str]:
    """Without the gateway that the environment may name."""
    return [word for text in ("base_model=m", "run_dir=unused", "gateway.url=", *more) for word in ("--set", text)]


def typed(capsys: Captured, *words: str) -> tuple[int, str, str]:
    """Exit status, output and errors of a command."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def test_validate_counts_the_rows_without_touching_anything(tmp_path: Path, capsys: Captured):
    rows = write_rows(tmp_path / "rows.jsonl")
    wanted = settings("data.held_out_share=0.25", f"run_dir={tmp_path}/run")
    status, out, err = typed(capsys, "validate", "--data", str(rows), *wanted)
    assert status == 0 and "24 rows from rows.jsonl" in err
    assert out.startswith("valid: ") and out.endswith(" held out\n")
    assert not (tmp_path / "run").exists()


def test_a_bad_row_ends_validate_with_one_line(tmp_path: Path, capsys: Captured):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    status, out, err = typed(capsys, "validate", "--data", str(rows), *settings())
    assert (status, out) == (1, "")
    assert err.startswith(f"trainer: {rows}:2: its keys (prompt) make no row") and err.count("\n") == 1


def test_a_gateway_that_is_away_ends_a_run_before_any_training(tmp_path: Path, capsys: Captured):
    rows = write_rows(tmp_path / "rows.jsonl")
    there = ("gateway.url=http://127.0.0.1:1", "gateway.key=k", "publish.tenant=acme", "publish.name=support")
    status, _, err = typed(capsys, "run", "--data", str(rows), *settings(*there, f"run_dir={tmp_path}/run"))
    assert status == 1 and "the gateway cannot be reached (ConnectError): is it running" in err
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_ends_a_run_with_one_line(tmp_path: Path, capsys: Captured):
    rows = write_rows(tmp_path / "rows.jsonl")
    status, _, err = typed(capsys, "run", "--data", str(rows), *settings(f"run_dir={rows}"))
    assert status == 1
    assert err == f"trainer: {rows} cannot be used (File exists): correct it, or name another place.\n"


def test_validating_and_refusing_import_no_torch(tmp_path: Path):
    rows = write_rows(tmp_path / "rows.jsonl")
    program = (
        "import sys; from trainer.cli import app\n"
        f"app(['validate', '--data', {str(rows)!r}, *{settings()!r}], standalone_mode=False)\n"
        "import trainer.publish, trainer.runlog\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'peft', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1].replace("'", '"')) == []
