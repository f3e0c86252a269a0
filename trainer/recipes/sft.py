"""Supervised fine-tuning of a LoRA: imitate the completions that were written, or judged good.

    rows → held-out loss → train → held-out loss → pack

It knows rows and the loss; how a training goes is recipes/fit.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import torch
import transformers
from transformers import TrainerControl
from trl import SFTConfig, SFTTrainer

from adapters.examples import Example
from trainer import evaluate, model
from trainer.config import RunSettings
from trainer.errors import InvalidData
from trainer.model import Loaded, supervised_loss
from trainer.progress import Progress
from trainer.recipes import fit
from trainer.runlog import RunDirectory
from trainer.tokens import Collate, Row, render


def train(run: RunDirectory, settings: RunSettings, progress: Progress) -> None:
    """Train on the run's rows, or continue, and leave `run.adapter` and `run.result()`. Raises `TrainerError`s."""
    started = fit.begin(run, settings, progress)
    loaded = started.loaded
    examples, kept = run.data()
    rows = _rendered(loaded, examples, settings, progress, what="training")
    held_out = _rendered(loaded, kept, settings, progress, what="held-out") if kept else []
    packed = loaded.packed and may_be_laid_out(loaded, rows)
    collate = Collate(packed=packed, pad_id=loaded.tokenizer.pad_token_id)
    lora = model.with_lora(loaded, settings.lora)

    def loss() -> float:
        found = evaluate.held_out(loaded, lora, held_out, collate, batch_size=settings.training.batch_size)
        return round(found.loss, 6)

    def build(arguments: dict[str, Any]) -> SupervisedTrainer:
        return SupervisedTrainer(lora, loaded, rows, collate, loss, arguments)

    measured: dict[str, float] = {}
    if held_out:
        measured["held_out_loss_before"] = loss()
        progress.say(f"held-out loss before training: {measured['held_out_loss_before']:.4f} on {len(held_out)} rows")
    fitted = fit.fit(run, settings, started, build, progress, rows=len(rows), watched=bool(held_out))
    if held_out:
        measured["held_out_loss"] = loss()
        progress.say(f"held-out loss after training: {measured['held_out_loss']:.4f}")
    fit.finish(run, settings, started, lora, fitted, measured)


def may_be_laid_out(loaded: Loaded, rows: Sequence[Row]) -> bool:
    """Whether this model gives rows in one sequence the loss it gives them padded: not every attention heeds a mask."""
    different = {tuple(row.ids): row for row in rows}.values()  # equal ones are one path, which any mask fits
    shortest = sorted(different, key=lambda row: len(row.ids))[:3]
    losses = []
    with torch.no_grad():
        for packed in (True, False):
            inputs = Collate(packed=packed, pad_id=loaded.tokenizer.pad_token_id)(shortest)
            losses.append(supervised_loss(loaded.model, inputs)[0].item())
    return math.isclose(*losses, rel_tol=1e-3)


class SupervisedTrainer(SFTTrainer):
    """TRL's trainer with the loss taken on supervised positions only, and weighted by row."""

    control: TrainerControl

    def __init__(
        self,
        lora: Any,
        loaded: Loaded,
        rows: Sequence[Row],
        collate: Collate,
        held_out_loss: Callable[[], float],
        arguments: dict[str, Any],
    ) -> None:
        table = [{"input_ids": row.ids, "labels": row.labels, "weight": row.weight} for row in rows]
        config = SFTConfig(
            **arguments,
            # Nothing is padded where rows are laid out in one sequence, so only padded batches gain by equal lengths.
            train_sampling_strategy="random" if collate.packed else "group_by_length",
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            remove_unused_columns=False,
        )
        trained_on = datasets.Dataset.from_list(table)
        super().__init__(
            lora,
            config,
            collate,
            train_dataset=trained_on,
            eval_dataset=trained_on if config.do_eval else None,  # TRL wants one; `evaluate` knows the rows
            processing_class=loaded.tokenizer,
        )
        self._loss_shifts_labels = False  # a batch's labels are what is predicted: all of them count
        self._loaded, self._held_out_loss = loaded, held_out_loss
        self.tokens = 0

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over the supervised tokens of a step, in all its batches and processes, as TRL's own."""
        if return_outputs:
            raise NotImplementedError("held-out rows are measured by trainer.evaluate")
        mask = inputs["attention_mask"]
        self.tokens += int(mask.sum()) if mask.dim() == 2 else mask.shape[-1]
        with self._loaded.computing():
            loss, count = supervised_loss(model, inputs)
        if num_items_in_batch is None:
            return loss / count
        return loss * self.accelerator.num_processes / num_items_in_batch  # the processes' gradients are averaged

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The held-out loss, as it is measured before and after training."""
        metrics = {"eval_loss": self._held_out_loss()}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: it would name local paths, and nobody reads it."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Without TRL's averages, which its own loss would have collected."""
        transformers.Trainer.log(self, logs, start_time)


def _rendered(
    loaded: Loaded, examples: Sequence[Example], settings: RunSettings, progress: Progress, *, what: str
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
