"""One run in two processes, under torchrun and then under accelerate launch.

It has the losses of one process, one that dies ends all, and it continues.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.trainer import tiny
from trainer.config import RunSettings
from trainer.progress import Silent
from trainer.run import run_all

pytestmark = [pytest.mark.training, pytest.mark.processes, pytest.mark.timeout(300)]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
"""Without a GPU, too: its --cpu starts one process, whatever number it is given."""


def started(wanted: RunSettings, *launcher: str) -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-m",
        *launcher,
        "-m",
        *tiny.command(wanted, "--json", "--set", "data.held_out_share=0")[2:],
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_two_processes_have_the_losses_of_one_with_twice_the_batch_though_one_was_killed(
    tmp_path: Path, tiny_model: Path
):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    common = {"training__max_steps": 30, "data__held_out_share": 0.0}
    one = tiny.settings(tmp_path / "one", tiny_model, training__batch_size=8, **common)
    run_all(one, Silent())
    two = tiny.settings(tmp_path / "two", tiny_model, training__batch_size=4, training__save_seconds=0, **common)
    broken = started(two, *TORCHRUN)
    while not (two.run_dir / "checkpoints" / "checkpoint-5").exists():
        assert broken.poll() is None
        time.sleep(0.02)
    os.kill(children(broken.pid)[-1], signal.SIGKILL)
    _, said = broken.communicate(timeout=100)
    assert broken.returncode != 0 and "Signal 9 (SIGKILL)" in said
    assert not (two.run_dir / "adapter").exists()
    whole = started(two, *ACCELERATE)
    told, said = whole.communicate(timeout=100)
    assert whole.returncode == 0 and "continuing after step " in said
    [line] = [line for line in told.splitlines() if line]
    assert json.loads(line)["steps"] == 30 and (two.run_dir / "adapter").exists()
    assert losses(two.run_dir) == pytest.approx(losses(one.run_dir), abs=1e-5)
