"""The two sides: the recipe as `trainer run` runs it, and TRL's own trainer given the same rows as text.

Both load the base and lay the LoRA on it by `trainer.model`, so that they begin with equal weights. Counted is the CPU
of this process from the moment a trainer is made until its training ends: tokenizing, asking the reference beforehand
and the training itself, but neither imports nor loading.
"""

from __future__ import annotations

import importlib
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import transformers
from transformers import AutoTokenizer, PrinterCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from adapters.examples import Example
from trainer import config, model
from trainer.config import RunSettings
from trainer.pairs import Answers
from trainer.progress import Silent
from trainer.recipes import kto
from trainer.runlog import RunDirectory


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training cost (seconds of CPU and of the wall) and its losses, step by step."""

    cpu: float
    wall: float
    losses: list[float]


class _Clock(Silent):
    """Reads the clocks at what was said last before the first step, and at the end; keeps the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self._said = self._began = self._ended = (0.0, 0.0)

    def say(self, text: str) -> None:
        self._said = _now()

    def begin(self, steps: int, *, done: int) -> None:
        self._began = self._said

    def step(self, step: int, *, loss: float, tokens: int) -> None:
        self.losses.append(loss)

    def end(self) -> None:
        self._ended = _now()

    def trained(self) -> Trained:
        cpu, wall = (end - begin for begin, end in zip(self._began, self._ended, strict=True))
        return Trained(cpu, wall, self.losses)


def settings(recipe: str, model_path: Path, run_dir: Path, *, steps: int, batch_size: int, **more: Any) -> RunSettings:
    """A run of `steps`; `more` are dotted keys with __ for the dot."""
    raw = {
        "recipe": recipe,
        "base_model": "load/test",
        "model_path": str(model_path),
        "run_dir": str(run_dir),
        "data.train": "rows.jsonl",
        "training.batch_size": batch_size,
        "training.max_steps": steps,
        "training.learning_rate": 5e-4,
        "training.save_seconds": 3600,
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    return config.load(None, raw.items(), environ={})


def ours(wanted: RunSettings, rows: Sequence[Example]) -> Trained:
    """The recipe, in a directory that is not there yet."""
    clock, run = _Clock(), RunDirectory(wanted)
    try:
        run.keep_data(list(rows), [], {})
        importlib.import_module(f"trainer.recipes.{wanted.recipe}").train(run, wanted, clock)
    finally:
        run.close()
    return clock.trained()


def stock(wanted: RunSettings, rows: Sequence[Example], told: dict[str, Any]) -> Trained:
    """TRL's trainer with the run's settings; `told` are those that make it a side of its own."""
    transformers.set_seed(wanted.training.seed)
    loaded = model.load(wanted)
    lora = model.with_lora(loaded, wanted.lora)
    began = _now()
    with tempfile.TemporaryDirectory() as output:
        trainer = _trainer(
            wanted, loaded, lora, rows, {"output_dir": output, "bf16": wanted.training.precision == "bf16", **told}
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    ended = _now()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return Trained(ended[0] - began[0], ended[1] - began[1], losses)


def _trainer(
    wanted: RunSettings, loaded: model.Loaded, lora: Any, rows: Sequence[Example], told: dict[str, Any]
) -> Any:
    training = wanted.training
    arguments: dict[str, Any] = {
        "max_steps": training.max_steps,
        "per_device_train_batch_size": training.batch_size,
        "learning_rate": wanted.learning_rate,
        "lr_scheduler_type": training.schedule,
        "warmup_steps": training.warmup,
        "seed": training.seed,
        "use_cpu": loaded.device == "cpu",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **told,
    }
    common = {"model": lora, "processing_class": loaded.tokenizer}
    if wanted.recipe == "sft":
        return SFTTrainer(args=SFTConfig(**arguments), train_dataset=_table(loaded, rows), **common)
    arguments["beta"] = wanted.preference.beta
    if wanted.recipe == "dpo":
        return DPOTrainer(args=DPOConfig(**arguments), train_dataset=_table(loaded, rows), **common)
    # TRL takes rows in the order given: the one that the recipe would put them in.
    order = kto.arranged(
        [{"label": row.label, "completion_ids": [], "weight": 1.0, "row": row} for row in rows], wanted
    )
    arguments["desirable_weight"], arguments["undesirable_weight"] = kto.balance(order, wanted.preference)
    return KTOTrainer(
        args=KTOConfig(**arguments), train_dataset=_table(loaded, [one["row"] for one in order]), **common
    )


def _table(loaded: model.Loaded, rows: Sequence[Example]) -> datasets.Dataset:
    """As text, with the prompt as it is served and the end of the turn: TRL's own rendering may end otherwise."""
    ending = loaded.tokenizer.eos_token
    found = []
    for row in rows:
        prompt = loaded.tokenizer.apply_chat_template(row.messages, tokenize=False, add_generation_prompt=True)
        one: dict[str, Any] = {"prompt": prompt}
        if row.rejected is not None:
            one |= {"chosen": row.completion + ending, "rejected": row.rejected + ending}
        else:
            one |= {"completion": row.completion + ending}
        found.append(one if row.label is None else {**one, "label": row.label})
    return datasets.Dataset.from_list(found)


def tokens(wanted: RunSettings, rows: Sequence[Example]) -> int:
    """How many tokens the rows have: each answer with its whole prompt, as if nothing were shared."""
    loaded = AutoTokenizer.from_pretrained(wanted.model_path)
    total = 0
    for row in rows:
        completions = [row.completion] if row.rejected is None else [row.completion, row.rejected]
        found = Answers.to(loaded, row, completions, wanted.data)
        total += sum(len(found.prompt) + len(answer) for answer in found.answers) if found else 0
    return total


def _now() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, time.monotonic()
