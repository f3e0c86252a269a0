"""Whether what was trained is what is served: PEFT in float32 beside the engine, on the same tokens.

Two things are compared. The log-probabilities of reference completions, token by token. And the greedy answers: PEFT is
fed the engine's own tokens, and names its likeliest one after each; where that first differs, both must be nearly as
likely, or the two are not the same model. One pass over prompt and answer says all of it, so nothing is generated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.config import RunSettings
from trainer.gate.policy import Parity
from trainer.runlog import RunDirectory

GREEDY_TOKENS = 32
NEAR_TIE = 4.0
"""Two tokens are a near tie within so many times the tolerance: that is of a mean, and a mean hides single tokens."""


@dataclass(frozen=True, slots=True)
class Served:
    """What the engine said of one row: the prompt, the reference's tokens with their log-probabilities, its greedy
    answer's tokens."""

    prompt: list[int]
    reference: list[int]
    logprobs: Sequence[float]
    greedy: list[int]


@dataclass(frozen=True, slots=True)
class Trained:
    """What PEFT says of the same: the reference's log-probabilities, and along the greedy answer how much likelier
    than the engine's token its own likeliest one is (nats; 0 where they are the same)."""

    logprobs: list[float]
    gaps: list[float]


def compare(served: Sequence[Served], trained: Sequence[Trained], *, tolerance: float) -> Parity:
    """The verdict on rows that both sides looked at."""
    apart = [
        abs(ours - theirs)
        for one, own in zip(served, trained, strict=True)
        for ours, theirs in zip(own.logprobs, one.logprobs, strict=True)
    ]
    first = [next((gap for gap in own.gaps if gap > 0), 0.0) for own in trained]
    diverged = sum(gap > NEAR_TIE * tolerance for gap in first)
    return Parity(len(served), sum(apart) / max(len(apart), 1), tolerance, diverged)


def with_peft(run: RunDirectory, settings: RunSettings, served: Sequence[Served]) -> list[Trained]:
    """The run's adapter on the base model as it is trained from, in float32 and not quantised."""
    import torch
    import transformers
    from peft import PeftModel

    from trainer import model

    transformers.utils.logging.disable_progress_bar()
    exact = settings.training.model_copy(update={"precision": "fp32", "quantize": "none"})
    loaded = model.load(settings.model_copy(update={"training": exact}))
    adapted = PeftModel.from_pretrained(loaded.model, str(run.adapter)).eval()
    with torch.no_grad():
        return [_look(adapted, loaded.device, one) for one in served]


def _look(adapted: Any, device: str, one: Served) -> Trained:
    import torch

    def after_prompt(answer: list[int]) -> Any:
        """The log-probabilities of every token at each position of the answer: (tokens, vocabulary)."""
        ids = torch.tensor([one.prompt + answer], device=device)
        logits = adapted(input_ids=ids, use_cache=False).logits[0, len(one.prompt) - 1 : -1]
        return torch.log_softmax(logits.float(), dim=-1)

    known = after_prompt(one.reference)
    logprobs = known[torch.arange(len(one.reference)), torch.tensor(one.reference)].tolist()
    if not one.greedy:
        return Trained(logprobs, [])
    along = after_prompt(one.greedy)
    chosen = along[torch.arange(len(one.greedy)), torch.tensor(one.greedy)]
    return Trained(logprobs, (along.max(dim=-1).values - chosen).tolist())
