"""Kahneman-Tversky optimisation of a LoRA: answers judged good become likelier than they were, those judged bad less.

    judged answers → what the reference thinks of them → held-out ones → train → held-out ones → pack

The losses are TRL's. How far the model has gone from the reference is estimated, in each batch, from its answers to
each other's prompts: so a batch has at least two rows, and rows keep an order in which good and bad are evenly spread.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from trl import KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference
from trl.trainer.utils import FusedCausalLMOutput

from adapters.examples import Example
from trainer import model
from trainer.config import RunSettings
from trainer.errors import InvalidConfig, InvalidData
from trainer.pairs import Answers
from trainer.progress import Progress
from trainer.recipes import fit, preferring
from trainer.recipes.preferring import Preferring
from trainer.runlog import RunDirectory
from trainer.settings.training import PreferenceSettings


def train(run: RunDirectory, settings: RunSettings, progress: Progress) -> None:
    """Train on the run's judged answers, or continue, and leave `run.adapter` and `run.result()`.

    Raises `TrainerError`s.
    """
    if settings.training.batch_size < 2:
        raise InvalidConfig("training.batch_size 1 leaves kto no other answer to compare with", "set it to 2 or more")
    started = fit.begin(run, settings, progress)
    examples, kept = run.data()
    found = preferring.rendered(started, examples, _answers, settings, progress, "training")
    judged_kept = preferring.rendered(started, kept, _answers, settings, progress, "held-out")
    rows = arranged([row for one in found for row in _rows(*one)], settings)
    held_out = arranged([{**row, "weight": 1.0} for one in judged_kept for row in _rows(*one)], settings)
    weights = balance(rows, settings.preference)
    progress.say(f"a good answer weighs {weights[0]:.3g}, a bad one {weights[1]:.3g}")
    laid_out = preferring.laid_out(started, found)
    pad_id = started.loaded.tokenizer.pad_token_id
    collate = DataCollatorForUnpairedPreference(pad_id, max_length=settings.data.max_tokens)
    lora = model.with_lora(started.loaded, settings.lora)

    def make(arguments: dict[str, Any]) -> JudgedTrainer:
        return JudgedTrainer(
            started.loaded,
            laid_out=laid_out,
            model=lora,
            args=configured(settings, arguments, weights),
            train_dataset=preferring.on_disk(run, "rows", rows),
            eval_dataset=preferring.on_disk(run, "held_out", held_out) if held_out else None,
            data_collator=preferring.weighed(collate),
        )

    preferring.fitted(run, settings, started, make, progress, rows=len(rows), held_out=len(held_out))


def configured(settings: RunSettings, arguments: dict[str, Any], weights: tuple[float, float]) -> KTOConfig:
    """TRL's settings; `weights` as `balance` gives them."""
    return KTOConfig(
        **arguments,
        beta=settings.preference.beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
        precompute_ref_log_probs=settings.preference.reference == "precomputed",
        max_length=None,
        router_aux_loss_coef=0.0,
        remove_unused_columns=False,
    )


def balance(rows: list[dict[str, Any]], settings: PreferenceSettings) -> tuple[float, float]:
    """Weights of good and bad rows; unless set, such that both sides weigh the same in all, and a row 1 on average.

    The paper's window for the good side's weight over the bad one's is 1 to 4/3 (arXiv 2402.01306, eq. 8).
    Raises `InvalidData` where one side is empty.
    """
    good = sum(row["weight"] for row in rows if row["label"])
    bad = sum(row["weight"] for row in rows if not row["label"])
    if not good or not bad:
        missing = "good" if bad else "bad"
        raise InvalidData(f"kto has no answer that was judged {missing}", "collect some of both, or run sft instead")
    wanted, unwanted = settings.desirable_weight, settings.undesirable_weight
    if wanted is None and unwanted is None:
        return (good + bad) / (2 * good), (good + bad) / (2 * bad)
    if wanted is None:
        wanted = (unwanted or 1.0) * bad / good
    return wanted, wanted * good / bad if unwanted is None else unwanted


def arranged(rows: list[dict[str, Any]], settings: RunSettings) -> list[dict[str, Any]]:
    """The order they are trained in, good and bad evenly spread, each with another's answer for the estimate.

    As TRL pairs them: in a batch each prompt gets the answer before it. A last batch of one borrows from the last but
    one.
    """
    dice = random.Random(settings.training.seed)
    sides = [[row for row in rows if row["label"] is label] for label in (True, False)]
    placed = []
    for side in sides:
        dice.shuffle(side)
        placed += [((place + 0.5) / len(side), row) for place, row in enumerate(side)]
    order = [row for _, row in sorted(placed, key=lambda one: one[0])]
    size = settings.training.batch_size
    for place, row in enumerate(order):
        begins = place % size == 0
        lone = place + 1 == len(order)
        other = order[place : place + size][-1] if begins and not lone else order[place - 1]
        row["KL_completion_ids"] = other["completion_ids"]
    return order


class JudgedTrainer(Preferring, KTOTrainer):
    """TRL's trainer, with our log-probabilities and weights. Columns of `seen`: log-probability, reference's, label."""

    before = ("held_out_loss", "held_out_reward_auc")

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """Of the answers and of the mismatched ones; TRL calls it to precompute them."""
        return self.reference(_joined(inputs)).chunk(2)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        if "ref_logps" not in inputs:
            found = self.compute_ref_log_probs(model, inputs)
            inputs = {**inputs, "ref_logps": found[0], "ref_KL_logps": found[1]}
        # One pass for both: a mismatched row costs its answer only, its prompt is there already.
        both = self.scored(model, _joined(inputs))
        label, weight = inputs["label"].bool(), inputs["weight"]
        outputs, mismatched = _parted(both, *inputs["input_ids"].shape)
        self._mismatched = mismatched
        found = outputs.log_probs.detach().sum(dim=1)
        self.seen = torch.stack([found, inputs["ref_logps"], label.float()], dim=1)
        self.tokens += int(inputs["attention_mask"].sum())
        self.desirable_weight = self.args.desirable_weight * weight[label]
        self.undesirable_weight = self.args.undesirable_weight * weight[~label]
        return super()._compute_loss(lambda **_: outputs, inputs, return_outputs)

    def _compute_kl_logps(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        return self._mismatched

    def told(self, seen: torch.Tensor) -> dict[str, float]:
        """How well rewards tell good answers from bad ones; the mean change of either's log-probability, nats."""
        now, before, label = seen.T
        change, good = now - before, label.bool()
        sides = {"good_change": change[good], "bad_change": change[~good]}
        told = {name: side.mean().item() for name, side in sides.items() if len(side)}
        return told if len(told) < 2 else {"reward_auc": float(roc_auc_score(label, change)), **told}


def _answers(example: Example) -> list[str]:
    return [example.completion] if example.kind == "label" else []


def _rows(example: Example, found: Answers) -> list[dict[str, Any]]:
    return [
        {"prompt_ids": found.prompt, "completion_ids": answer, "label": example.label, "weight": example.weight}
        for answer in found.answers
    ]


_MASKS = ("input_ids", "attention_mask", "completion_mask")


def _joined(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The batch and, after it, its mismatched rows."""
    return {name: _stacked(inputs[name], inputs[f"KL_{name}"]) for name in _MASKS}


def _stacked(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    longest = max(first.shape[1], second.shape[1])
    return torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in (first, second)])


def _parted(both: FusedCausalLMOutput, rows: int, longest: int) -> tuple[FusedCausalLMOutput, torch.Tensor]:
    """What was found of the batch's own (rows, longest), and the mismatched rows' log-probabilities."""
    own = {name: field[:rows, : longest - 1] for name, field in both.items() if field.dim() == 2}
    return FusedCausalLMOutput(**own), both.log_probs[rows:].detach().sum(dim=1)
