"""Every recipe on the tiny model: two steps, stopped in the second and continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer import tiny
from trainer.config import RunSettings
from trainer.progress import Silent
from trainer.run import run_all

pytestmark = pytest.mark.training

ANSWERS = {
    "sft": lambda n: {"completion": f"it is {n % 7}"},
    "dpo": lambda n: {"chosen": f"it is {n % 7}", "rejected": f"{n % 3} it was"},
    "kto": lambda n: {"completion": f"it is {n % 7}", "label": n % 3 == 0},
}


class Stopped(Exception):
    pass


class StoppedAt(Silent):
    """A run that ends as its second step does: before that is written down."""

    def step(self, step: int, *, loss: float, tokens: int) -> None:
        if step == 2:
            raise Stopped


def settings(directory: Path, model: Path, recipe: str, **changed: Any) -> RunSettings:
    directory.mkdir()
    rows = directory / "some.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"count {n}", **ANSWERS[recipe](n)}) + "\n" for n in range(12)))
    told = {"data__train": str(rows), "data__near_duplicates": None, "data__held_out_share": 0.0}
    told |= {"training__max_steps": 2, "training__save_seconds": 0, "training__learning_rate": 5e-3}
    return tiny.settings(directory, model, recipe=recipe, **told, **changed)


def losses(wanted: RunSettings) -> list[float]:
    return [json.loads(line)["loss"] for line in (wanted.run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("recipe", "quantize"),
    [("sft", "none"), ("dpo", "none"), ("kto", "none"), ("sft", "nf4")],
)
def test_two_steps_stopped_in_the_second_end_as_if_they_had_not_been(
    tmp_path: Path, tiny_model: Path, recipe: str, quantize: str
):
    whole = settings(tmp_path / "whole", tiny_model, recipe, training__quantize=quantize)
    run_all(whole, Silent())
    stopped = settings(tmp_path / "stopped", tiny_model, recipe, training__quantize=quantize)
    with pytest.raises(Stopped):
        run_all(stopped, StoppedAt())
    assert not (stopped.run_dir / "adapter").exists()
    result = run_all(stopped, Silent())
    assert (result["steps"], len(losses(whole))) == (2, 2)
    assert losses(stopped) == pytest.approx(losses(whole), abs=1e-6)
    assert sorted(path.name for path in (stopped.run_dir / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
