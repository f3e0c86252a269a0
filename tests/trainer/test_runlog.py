"""The run directory: one owner, one run, and rows that are those it began with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from adapters.examples import Example
from tests.trainer.tiny import settings, write_rows
from trainer.errors import RunConflict
from trainer.runlog import RunDirectory

ROWS = [
    Example(
        messages=[{"role": "user", "content": "a\u2028b"}], completion="x", feedback_ids=["f2", "f1"], inference_id="i1"
    ),
    Example(messages=[{"role": "user", "content": "c"}], completion="y", kind="seed"),
]


def begun(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(settings(tmp_path, tmp_path))
    run.keep_data(ROWS, ROWS[:1], {"from rows.jsonl": 2})
    return run


def test_a_run_remembers_its_rows_their_feedback_and_what_it_ran_with(tmp_path: Path):
    run = begun(tmp_path)
    assert run.data() == (ROWS, ROWS[:1])
    assert json.loads((run.path / "lineage.json").read_text()) == {"feedback": ["f1", "f2"], "inferences": ["i1"]}
    about = json.loads((run.path / "run.json").read_text())
    assert (about["examples"], about["feedback"], about["seed"]) == (2, 1, 0)
    assert about["dataset_digest"].startswith("sha256:") and about["versions"]["torch"]
    assert yaml.safe_load((run.path / "config.yaml").read_text())["lora"]["rank"] == 8


def test_a_second_process_is_kept_out_and_let_in_afterwards(tmp_path: Path):
    run = begun(tmp_path)
    program = (
        "import pathlib, sys; from tests.trainer.tiny import settings; from trainer.runlog import RunDirectory\n"
        "path = pathlib.Path(sys.argv[1]); print(RunDirectory(settings(path, path)).resumed)"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    kept_out = subprocess.run(words, capture_output=True, text=True)
    assert "another process is running" in kept_out.stderr
    run.close()
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "True\n"


def test_another_runs_directory_is_refused(tmp_path: Path):
    run = begun(tmp_path)
    (run.checkpoints / "checkpoint-1").mkdir(parents=True)
    run.close()
    with pytest.raises(RunConflict, match="holds a run with other settings: name another run_dir"):
        RunDirectory(settings(tmp_path, tmp_path, training__seed=1))
    wanted = settings(tmp_path, tmp_path)
    write_rows(tmp_path / "rows.jsonl", 5)
    with pytest.raises(RunConflict, match="holds a run with other data files"):
        RunDirectory(wanted)


def test_a_run_that_was_corrected_before_its_first_step_begins_anew_in_its_directory(tmp_path: Path):
    run = begun(tmp_path)
    (run.path / "start").mkdir()
    run.close()
    corrected = settings(tmp_path, tmp_path, lora__rank=16)
    again = RunDirectory(corrected)
    assert (again.resumed, again.start, again.about["essence"]["settings"]["lora"]["rank"]) == (False, None, 16)
    again.keep_data(ROWS, [], {})
    again.close()
    assert RunDirectory(corrected).resumed


def test_rows_changed_behind_a_runs_back_are_refused(tmp_path: Path):
    run = begun(tmp_path)
    rows = run.path / "data" / "train.jsonl"
    rows.write_text(rows.read_text().replace('"y"', '"z"'))
    with pytest.raises(RunConflict, match="are not those this run began with"):
        run.data()


def test_a_continued_run_drops_the_metrics_of_steps_it_repeats(tmp_path: Path):
    run = begun(tmp_path)
    with run.metrics(up_to=0) as file:
        file.write('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    run.metrics(up_to=2).close()
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'
