"""`trainer validate` and the refusals of `trainer run`, as a person meets them. Nothing here loads torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.trainer.tiny import shell, write_rows


def settings(*more: str) -> list[str]:
    return [word for text in ("base_model=m", "run_dir=unused", *more) for word in ("--set", text)]


def test_validate_counts_the_rows_without_touching_anything(tmp_path: Path):
    rows = write_rows(tmp_path / "rows.jsonl")
    done = shell("validate", "--data", str(rows), *settings("data.held_out_share=0.25", f"run_dir={tmp_path}/run"))
    assert done.returncode == 0 and "24 rows from rows.jsonl" in done.stderr
    assert done.stdout.startswith("valid: ") and done.stdout.endswith(" held out\n")
    assert not (tmp_path / "run").exists()


def test_a_bad_row_ends_validate_with_one_line(tmp_path: Path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    done = shell("validate", "--data", str(rows), *settings())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"trainer: {rows}:2: its keys (prompt) make no row") and done.stderr.count("\n") == 1


def test_a_gateway_that_is_away_ends_a_run_before_any_training(tmp_path: Path):
    rows = write_rows(tmp_path / "rows.jsonl")
    names = ("publish.tenant=acme", "publish.name=support", f"run_dir={tmp_path}/run")
    done = shell("run", "--data", str(rows), *settings(*names), GATEWAY_URL="http://127.0.0.1:1", GATEWAY_KEY="k")
    assert done.returncode == 1 and "the gateway cannot be reached (ConnectError): is it running" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_ends_a_run_with_one_line(tmp_path: Path):
    rows = write_rows(tmp_path / "rows.jsonl")
    done = shell("run", "--data", str(rows), *settings(f"run_dir={rows}"))
    assert done.returncode == 1
    assert done.stderr == f"trainer: {rows} cannot be used (File exists): correct it, or name another place.\n"


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
