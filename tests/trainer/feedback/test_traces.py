"""What run directories hold of a user is found, listed and taken out."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from adapters.examples import Example
from trainer import lineage
from trainer.errors import InvalidData, RunConflict


def run_with(directory: Path, **units: list[str]) -> Path:
    (directory / "data").mkdir(parents=True)
    (directory / "gate").mkdir()
    (directory / "run.json").write_text("{}")
    (directory / "gate/rows.jsonl").write_text("what held-out users said\n")
    for side, of in units.items():
        rows = [
            Example(messages=[{"role": "user", "content": f"ask {n}"}], completion=f"of {unit}", unit=unit)
            for n, unit in enumerate(of)
        ]
        (directory / f"data/{side}.jsonl").write_text("".join(row.to_json() + "\n" for row in rows))
    return directory


def units(run_dir: Path, side: str) -> list[str]:
    return [json.loads(line)["unit"] for line in (run_dir / f"data/{side}.jsonl").read_text().splitlines()]


def test_the_rows_of_a_run_are_told_in_their_order(tmp_path: Path):
    run = run_with(tmp_path / "a", train=["u1", "u2", "u1"])
    assert [row.unit for row in lineage.rows_of(run)] == ["u1", "u2", "u1"]
    with pytest.raises(InvalidData, match="holds no run"):
        list(lineage.rows_of(tmp_path))


def test_a_users_rows_are_erased_from_every_side_and_the_gates_quotes_with_them(tmp_path: Path):
    first = run_with(tmp_path / "a", train=["u1", "u2"], held_out=["u3"])
    second = run_with(tmp_path / "deep/b", train=["u2"], test=["u1", "u4"])
    run_with(tmp_path / "c", train=["u10"])
    found = lineage.traces(tmp_path, "u1")
    assert [str(trace) for trace in found] == [f"{first}: 1 train", f"{second}: 1 test"]
    for trace in found:
        lineage.erase(trace, "u1")
    assert (units(first, "train"), units(first, "held_out")) == (["u2"], ["u3"])
    assert units(second, "test") == ["u4"]
    assert (first / "gate").exists() and not (second / "gate").exists()
    assert lineage.traces(tmp_path, "u1") == []


def test_a_run_that_is_going_on_is_left_alone(tmp_path: Path):
    run = run_with(tmp_path / "a", train=["u1"])
    (trace,) = lineage.traces(tmp_path, "u1")
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunConflict, match="a process is running in"):
            lineage.erase(trace, "u1")
    assert units(run, "train") == ["u1"]


def test_a_directory_that_is_none_is_named(tmp_path: Path):
    with pytest.raises(InvalidData, match="is no directory"):
        lineage.traces(tmp_path / "absent", "u1")
