"""Direct preference optimisation of a LoRA: what was preferred becomes likelier than what it was preferred over.

    pairs → what the reference thinks of them → held-out pairs → train → held-out pairs → pack

The losses are TRL's. DPO may lower the probability of preferred answers too, as long as that of the others falls
faster: `chosen_change` tells (nats, against the reference). If it falls by more than a few, raise `preference.beta`,
lower the learning rate, or begin with sft on the same answers.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from adapters.examples import Example
from trainer import model
from trainer.config import RunSettings
from trainer.errors import InvalidData
from trainer.pairs import Answers
from trainer.progress import Progress
from trainer.recipes import fit, preferring
from trainer.recipes.preferring import Preferring
from trainer.runlog import RunDirectory


def train(run: RunDirectory, settings: RunSettings, progress: Progress) -> None:
    """Train on the run's pairs, or continue, and leave `run.adapter` and `run.result()`. Raises `TrainerError`s."""
    started = fit.begin(run, settings, progress)
    examples, kept = run.data()
    found = preferring.rendered(started, examples, _pair, settings, progress, "training")
    held_out = preferring.rendered(started, kept, _pair, settings, progress, "held-out")
    if not found:
        raise InvalidData(
            "there is no pair to learn from", "give dpo rows with `chosen` and `rejected`, or preferences"
        )
    laid_out = preferring.laid_out(started, found)
    lora = model.with_lora(started.loaded, settings.lora)

    def make(arguments: dict[str, Any]) -> PairTrainer:
        return PairTrainer(
            started.loaded,
            laid_out=laid_out,
            model=lora,
            args=configured(settings, arguments),
            train_dataset=preferring.on_disk(run, "rows", [_row(*one) for one in found]),
            eval_dataset=preferring.on_disk(run, "held_out", [{**_row(*one), "weight": 1.0} for one in held_out])
            if held_out
            else None,
            data_collator=preferring.weighed(DataCollatorForPreference(started.loaded.tokenizer.pad_token_id)),
        )

    preferring.fitted(run, settings, started, make, progress, rows=len(found), held_out=len(held_out))


def configured(settings: RunSettings, arguments: dict[str, Any]) -> DPOConfig:
    """TRL's settings. Its plain loss knows no label smoothing; "robust" is the same loss with it."""
    wanted = settings.preference
    return DPOConfig(
        **arguments,
        beta=wanted.beta,
        loss_type=["robust" if wanted.label_smoothing else "sigmoid"],
        label_smoothing=wanted.label_smoothing,
        precompute_ref_log_probs=wanted.reference == "precomputed",
        use_weighting=True,
        max_length=None,
        router_aux_loss_coef=0.0,
        remove_unused_columns=False,
    )


class PairTrainer(Preferring, DPOTrainer):
    """TRL's trainer, with our log-probabilities and weights. Columns of `seen`: chosen, rejected, the reference's."""

    before = ("held_out_loss", "held_out_preference_accuracy")

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """Of the chosen and of the rejected answers; TRL calls it to precompute them."""
        return self.reference(inputs).chunk(2)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        if "ref_chosen_logps" not in inputs:
            found = self.compute_ref_log_probs(model, inputs)
            inputs = {**inputs, "ref_chosen_logps": found[0], "ref_rejected_logps": found[1]}
        outputs = self.scored(model, inputs)
        chosen, rejected = outputs.log_probs.detach().sum(dim=1).chunk(2)
        self.seen = torch.stack([chosen, rejected, inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]], dim=1)
        self.tokens += int(inputs["attention_mask"].sum())
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["chosen_change"].append((chosen - inputs["ref_chosen_logps"]).mean().item())
        # TRL weighs pairs by WPO's factor only, exp(mean(log p - log Σp²)) of both answers: with this in the place of
        # its log Σp² the factor is the pair's own weight.
        each = inputs["weight"].log().repeat(2) / 2
        outputs.log_sum_sq_probs = outputs.log_probs.detach() - each[:, None]
        return super()._compute_loss(lambda **_: outputs, inputs, return_outputs)

    def told(self, seen: torch.Tensor) -> dict[str, float]:
        """Shares of pairs that the model has the right way round, by itself and against the reference; nats."""
        chosen, rejected, chosen_before, rejected_before = seen.T
        margins = (chosen - chosen_before) - (rejected - rejected_before)
        return {
            "preference_accuracy": (chosen > rejected).float().mean().item(),
            "reward_accuracy": (margins > 0).float().mean().item(),
            "reward_margin": self.beta * margins.mean().item(),
            "chosen_change": (chosen - chosen_before).mean().item(),
        }


def _pair(example: Example) -> list[str]:
    return [example.completion, example.rejected] if example.rejected is not None else []


def _row(example: Example, found: Answers) -> dict[str, Any]:
    chosen, rejected = found.answers
    return {"prompt_ids": found.prompt, "chosen_ids": chosen, "rejected_ids": rejected, "weight": example.weight}
