"""Supervised fine-tuning of a LoRA: imitate the completions that were written, or judged good.

    ask the gateway whether the result could be served → read and split the rows → held-out loss → train → held-out loss
    → pack → publish

A run killed at any point continues when it is started again on its directory, with the same losses.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import datasets
import torch
import transformers
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from adapters.examples import Example
from trainer import evaluate, model
from trainer.config import RunSettings
from trainer.errors import InvalidData, TrainingFailed
from trainer.model import supervised_loss
from trainer.progress import Progress
from trainer.publish import package
from trainer.runlog import RunDirectory
from trainer.settings.training import TrainingSettings
from trainer.tokens import Collate, Row, render


def train(run: RunDirectory, settings: RunSettings, progress: Progress) -> None:
    """Train on the run's rows, or continue, and leave `run.adapter` and `run.result()`. Raises `TrainerError`s."""
    _quiet()
    began = time.monotonic()
    progress.say(f"loading {settings.base_model}")
    transformers.set_seed(settings.training.seed)
    loaded = model.load(settings)
    how = "bfloat16" if loaded.autocast or loaded.model.dtype == torch.bfloat16 else "float32"
    progress.say(
        f"training on {loaded.device} in {how}"
        + (f", {torch.get_num_threads()} threads" if loaded.device == "cpu" else "")
    )
    examples, kept = run.data()
    rows = _rendered(loaded, examples, settings, progress, what="training")
    held_out = _rendered(loaded, kept, settings, progress, what="held-out") if kept else []
    packed = loaded.packed and may_be_laid_out(loaded, rows)
    collate = Collate(packed=packed, pad_id=loaded.tokenizer.pad_token_id)
    lora = model.with_lora(loaded, settings.lora)
    measured: dict[str, float] = {}
    if held_out:
        measured["held_out_loss_before"] = _measure(loaded, lora, held_out, collate, settings, progress, "before")
    trained = _fit(run, loaded, lora, rows, collate, settings, progress)
    if held_out:
        measured["held_out_loss"] = _measure(loaded, lora, held_out, collate, settings, progress, "after")
    saved = run.path / "saved"
    shutil.rmtree(saved, ignore_errors=True)
    model.save_adapter(lora, saved)
    measured |= {"train_loss": trained.last_loss, "steps": float(trained.steps)}
    package(run, saved, settings, base=loaded.directory, metrics=measured)
    run.keep_result({**measured, "seconds": round(time.monotonic() - began, 1)})
    shutil.rmtree(saved)
    shutil.rmtree(run.checkpoints, ignore_errors=True)  # they hold pickles, and nothing needs them any more


def may_be_laid_out(loaded: model.Loaded, rows: Sequence[Row]) -> bool:
    """Whether this model gives rows in one sequence the loss it gives them padded: not every attention heeds a mask."""
    shortest = sorted(rows, key=lambda row: len(row.ids))[:3]
    losses = []
    with torch.no_grad():
        for packed in (True, False):
            inputs = Collate(packed=packed, pad_id=loaded.tokenizer.pad_token_id)(shortest)
            losses.append(supervised_loss(loaded.model, inputs)[0].item())
    return math.isclose(*losses, rel_tol=1e-3)


class SupervisedTrainer(SFTTrainer):
    """TRL's trainer with the loss taken on supervised positions only, and weighted by row."""

    def __init__(self, loaded: model.Loaded, **arguments: Any) -> None:
        super().__init__(processing_class=loaded.tokenizer, **arguments)
        self._loaded = loaded
        self.tokens = 0

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over the step's supervised tokens, as TRL's own. There are no outputs to return."""
        if return_outputs:
            raise NotImplementedError("held-out rows are measured by trainer.evaluate")
        mask = inputs["attention_mask"]
        self.tokens += int(mask.sum()) if mask.dim() == 2 else mask.shape[-1]
        with self._loaded.computing():
            loss, count = supervised_loss(model, inputs)
        return loss / (count if num_items_in_batch is None else num_items_in_batch)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: it would name local paths, and nobody reads it."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Without TRL's averages, which its own loss would have collected."""
        transformers.Trainer.log(self, logs, start_time)


class _Watch(TrainerCallback):
    """Writes metrics, shows progress, saves by the clock, and stops a training that has diverged."""

    def __init__(self, settings: TrainingSettings, metrics: TextIO, progress: Progress) -> None:
        self.trainer: SupervisedTrainer | None = None
        self.last_loss = math.nan
        self.steps = 0
        self._every, self._metrics, self._progress = settings.save_seconds, metrics, progress
        self._saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.begin(state.max_steps, done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if time.monotonic() - self._saved >= self._every and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        assert self.trainer is not None
        if not math.isfinite(logs["loss"]):
            raise TrainingFailed(
                f"the loss is {logs['loss']} at step {state.global_step}", "lower training.learning_rate"
            )
        self.last_loss, self.steps = logs["loss"], state.global_step
        line = {"step": state.global_step, **{key: logs[key] for key in ("loss", "grad_norm", "learning_rate")}}
        self._metrics.write(json.dumps(line) + "\n")
        self._progress.step(state.global_step, loss=logs["loss"], tokens=self.trainer.tokens)


def _fit(
    run: RunDirectory,
    loaded: model.Loaded,
    lora: Any,
    rows: Sequence[Row],
    collate: Collate,
    settings: RunSettings,
    progress: Progress,
) -> _Watch:
    checkpoint = _last_checkpoint(run.checkpoints)
    done = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
    if done:
        progress.say(f"continuing after step {done}")
    table = [{"input_ids": row.ids, "labels": row.labels, "weight": row.weight} for row in rows]
    with run.metrics(up_to=done) as metrics:
        watch = _Watch(settings.training, metrics, progress)
        trainer = SupervisedTrainer(
            loaded,
            model=lora,
            args=_arguments(run, loaded, settings, grouped=not collate.packed),
            train_dataset=datasets.Dataset.from_list(table),
            data_collator=collate,
            callbacks=[watch],
        )
        watch.trainer = trainer
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            progress.end()
    return watch


def _arguments(run: RunDirectory, loaded: model.Loaded, run_settings: RunSettings, *, grouped: bool) -> SFTConfig:
    on_cpu = loaded.device == "cpu"
    settings = run_settings.training
    return SFTConfig(
        output_dir=str(run.checkpoints),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=run_settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        seed=settings.seed,
        use_cpu=on_cpu,
        bf16=not on_cpu and loaded.model.dtype == torch.bfloat16,
        gradient_checkpointing=False,
        # Nothing is padded where rows are laid out in one sequence, so only padded batches gain by equal lengths.
        train_sampling_strategy="group_by_length" if grouped else "random",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )


def _last_checkpoint(directory: Path) -> Path | None:
    """The newest whole checkpoint. A kill while one was written leaves it without its last file, or with half of it."""
    found = sorted(directory.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path)
            continue
        return path
    return None


def _rendered(
    loaded: model.Loaded, examples: Sequence[Example], settings: RunSettings, progress: Progress, *, what: str
) -> list[Row]:
    data = settings.data
    rendered = render(loaded.tokenizer, examples, max_tokens=data.max_tokens, overlong=data.overlong)
    if rendered.dropped or rendered.cut:
        progress.say(f"{what} rows over {data.max_tokens} tokens: {rendered.dropped} dropped, {rendered.cut} cut")
    supervised = sum(label != -100 for row in rendered.rows for label in row.labels)
    tokens = sum(len(row.ids) for row in rendered.rows)
    progress.say(f"{len(rendered.rows)} {what} rows, {tokens} tokens, {supervised} of them supervised")
    if not supervised:
        raise InvalidData(
            f"no {what} row leaves a token to learn from", "raise data.max_tokens, or shorten the prompts"
        )
    return rendered.rows


def _measure(
    loaded: model.Loaded,
    lora: Any,
    rows: Sequence[Row],
    collate: Collate,
    settings: RunSettings,
    progress: Progress,
    when: str,
) -> float:
    found = evaluate.held_out(loaded, lora, rows, collate, batch_size=settings.training.batch_size)
    progress.say(f"held-out loss {when} training: {found.loss:.4f} on {len(rows)} rows, {found.tokens} tokens")
    return round(found.loss, 6)


def _quiet() -> None:
    """The libraries' own bars and advice would bury ours."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
