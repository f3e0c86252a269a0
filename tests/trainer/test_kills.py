"""kill -9 at any moment of a run: it ends with the losses of one that was never killed, and no half adapter is seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.dying import wanted
from trainer.progress import Silent
from trainer.run import run_all

pytestmark = [pytest.mark.training, pytest.mark.processes, pytest.mark.timeout(300)]


def lines(run: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return found


@pytest.mark.parametrize("seed", [1])
def test_killed_again_and_again_a_run_ends_as_if_it_never_was(tmp_path: Path, tiny_model: Path, seed: int):
    for name in ("whole", "torn"):
        (tmp_path / name).mkdir()
    whole, torn = wanted(tmp_path / "whole", tiny_model), wanted(tmp_path / "torn", tiny_model)
    result = run_all(whole, Silent())
    words = [sys.executable, "-m", "tests.trainer.dying", str(tmp_path / "torn"), str(tiny_model), str(seed)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0 and done.stdout.endswith("ended True\n"), done.stdout + done.stderr
    assert done.stdout.count("killed") >= 2
    ours, theirs = lines(torn.run_dir), lines(whole.run_dir)
    assert [sorted(line) for line in ours] == [sorted(line) for line in theirs]
    for key in ("step", "loss", "held_out_loss"):
        assert [one[key] for one in ours if key in one] == pytest.approx(
            [one[key] for one in theirs if key in one], abs=1e-6
        )
    again = json.loads((torn.run_dir / "result.json").read_text())
    assert again["held_out_loss"] == pytest.approx(result["held_out_loss"], abs=1e-6)
    assert again["best_step"] == result["best_step"] and (torn.run_dir / "adapter").exists()
