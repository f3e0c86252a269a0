"""What the two recipes that learn from preferences share. It knows no loss: those, and most metrics, are TRL's.

The reference is what a training begins with: the base, or the adapter of `training.start_from`. Before the first step
TRL computes what it thinks of every row, and keeps that beside the rows, which lie with the checkpoints: a run that
continues finds it there as long as rows and model are the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerControl
from trl.trainer.utils import FusedCausalLMOutput, use_adapter

from adapters.examples import Example
from trainer import processes
from trainer.config import RunSettings
from trainer.errors import InvalidConfig
from trainer.model import Loaded
from trainer.pairs import Answers, scores
from trainer.progress import Progress
from trainer.recipes import fit
from trainer.recipes.fit import Started
from trainer.recipes.sft import may_be_laid_out
from trainer.runlog import RunDirectory
from trainer.tokens import IGNORED, Row

Collate = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]
Wanted = Callable[[Example], Sequence[str]]
"""The answers that a recipe learns from in an example; none where it has no use for it."""


class Preferring(Trainer):
    """Laid over one of TRL's preference trainers: where log-probabilities come from, and the held-out rows.

    A recipe's trainer says in `referred` what the reference thinks of a batch, keeps in `seen` what was found of the
    last batch's rows, (rows, columns), and tells in `told` what that means.
    """

    before: tuple[str, ...]
    """The figures of held-out rows that are worth telling before training, too."""
    _metrics: dict[str, dict[str, list[float]]]
    control: TrainerControl

    def __init__(self, loaded: Loaded, *, laid_out: bool, args: Any, **arguments: Any) -> None:
        self._loaded, self._laid_out = loaded, laid_out
        self.tokens = 0
        self.seen = torch.empty(0)
        if loaded.start is not None and not args.precompute_ref_log_probs:
            what = "preference.reference live cannot ask the adapter of training.start_from"
            raise InvalidConfig(what, "leave it at precomputed")
        super().__init__(processing_class=loaded.tokenizer, args=args, **arguments)
        # TRL's copy of the adapter as it was. A checkpoint that holds two adapters is read back without the first one
        # (transformers 5.19); what is still asked about is the base, which is this model with its adapter switched off.
        self.model.delete_adapter("ref")
        self.precompute_ref_logps = True  # a live reference, too, is given to TRL's loss with the batch

    def told(self, seen: torch.Tensor) -> dict[str, float]:
        """Figures of held-out rows."""
        raise NotImplementedError

    def scored(self, model: Any, inputs: dict[str, torch.Tensor]) -> FusedCausalLMOutput:
        """What TRL's fused head says of padded rows; by way of trees where the model allows."""
        with self._loaded.computing():
            if self._laid_out:
                return scores(model, inputs)
            labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORED)
            asked = {key: inputs[key] for key in ("input_ids", "attention_mask")}
            return model(**asked, labels=labels, use_cache=False, fused_lm_head=True)

    def reference(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Each row's log-probability by the model as it was before training; (rows,), nats."""
        lora = self.accelerator.unwrap_model(self.model)
        with (
            torch.no_grad(),
            use_adapter(lora, "ref" if "ref" in lora.peft_config else None),
            self.accelerator.autocast(),
        ):
            return self.scored(lora, inputs).log_probs.sum(dim=1)

    def held_out(self) -> dict[str, float]:
        """The loss over the held-out rows as TRL computes it, and what the recipe tells of them."""
        self.model.eval()
        total, found = 0.0, []
        size = self.args.per_device_eval_batch_size
        for batch in DataLoader(self.eval_dataset, size, collate_fn=self.data_collator):
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self.compute_loss(self.model, self._prepare_inputs(batch))
            total += loss.item() * len(self.seen)
            found.append(self.seen)
        self._metrics["eval"].clear()
        told = {"loss": total / len(self.eval_dataset), **self.told(torch.cat(found).float().cpu())}
        return {f"held_out_{name}": round(value, 6) for name, value in told.items()}

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The held-out loss, as it is measured before and after training."""
        metrics = {"eval_loss": self.held_out()["held_out_loss"]}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: it would name local paths, and nobody reads it."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # rendered as it is served


def rendered(
    started: Started, examples: Sequence[Example], wanted: Wanted, settings: RunSettings, progress: Progress, what: str
) -> list[tuple[Example, Answers]]:
    """The examples that the recipe learns from, as token ids. Says what is left out."""
    useful = [(example, wanted(example)) for example in examples]
    asked = [(example, completions) for example, completions in useful if completions]
    found = [
        (example, answers)
        for example, completions in asked
        if (answers := Answers.to(started.loaded.tokenizer, example, completions, settings.data)) is not None
    ]
    if len(asked) < len(useful):
        progress.say(f"{len(useful) - len(asked)} {what} rows are nothing that {settings.recipe} learns from")
    if len(found) < len(asked):
        progress.say(f"{what} rows over {settings.data.max_tokens} tokens: {len(asked) - len(found)} dropped")
    progress.say(f"{len(found)} {what} rows")
    return found


def fitted(
    run: RunDirectory,
    settings: RunSettings,
    started: Started,
    make: Callable[[dict[str, Any]], Any],
    progress: Progress,
    *,
    rows: int,
    held_out: int,
) -> None:
    """Train what `make` makes, measure it on the held-out rows before and after, and pack the result."""
    made: list[Any] = []
    measured: dict[str, float] = {}

    def build(arguments: dict[str, Any]) -> Any:
        progress.say(f"asking the reference about {rows + held_out} rows")
        trainer = make(arguments)
        made.append(trainer)
        if held_out:
            found = trainer.held_out()
            before = {name: found[name] for name in trainer.before if name in found}
            measured.update({f"{name}_before": value for name, value in before.items()})
            progress.say(_sentence("before", before))
        return trainer

    result = fit.fit(run, settings, started, build, progress, rows=rows, watched=bool(held_out))
    if held_out:
        after = made[0].held_out()
        measured.update(after)
        progress.say(_sentence("after", after))
    fit.finish(run, settings, started, made[0].accelerator.unwrap_model(made[0].model), result, measured)


def on_disk(run: RunDirectory, name: str, rows: list[dict[str, Any]]) -> datasets.Dataset:
    """The rows in the run's directory; what TRL precomputes of them goes beside, under a name made of both's hashes."""
    path = run.checkpoints / name
    if run.owned and not path.exists():
        draft = path.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        datasets.Dataset.from_list(rows).save_to_disk(str(draft))
        draft.replace(path)
    processes.wait()
    return datasets.load_from_disk(str(path))


def weighed(collate: Collate) -> Collate:
    """One of TRL's collators, with the rows' weights beside what it makes of them."""
    return lambda rows: {**collate(rows), "weight": torch.tensor([row["weight"] for row in rows])}


def laid_out(started: Started, found: Sequence[tuple[Example, Answers]]) -> bool:
    """Whether the model may be given rows as trees."""
    rows = [
        Row(answers.prompt + answers.answers[0], [IGNORED] * len(answers.prompt) + answers.answers[0])
        for _, answers in found
    ]
    return started.loaded.packed and may_be_laid_out(started.loaded, rows)


def _sentence(when: str, figures: dict[str, float]) -> str:
    told = [f"{name.removeprefix('held_out_').replace('_', ' ')} {value:.4f}" for name, value in figures.items()]
    return f"held-out rows {when} training: {', '.join(told)}"
