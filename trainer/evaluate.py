"""How well a model knows rows that it was not trained on. It knows nothing of where they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.model import Loaded, supervised_loss
from trainer.tokens import Collate, Row


@dataclass(frozen=True, slots=True)
class HeldOut:
    """`loss` is the mean negative log-likelihood (nats) of a supervised token; `tokens` how many there were."""

    loss: float
    tokens: int


def held_out(loaded: Loaded, model: Any, rows: Sequence[Row], collate: Collate, *, batch_size: int) -> HeldOut:
    """The loss over `rows` (at least one), as training computes it, without dropout. Leaves the model in eval mode."""
    model.eval()
    total, tokens = 0.0, 0
    by_length = sorted(rows, key=lambda row: len(row.ids))
    with torch.no_grad(), loaded.computing():
        for start in range(0, len(by_length), batch_size):
            inputs = collate([Row(row.ids, row.labels) for row in by_length[start : start + batch_size]])
            loss, count = supervised_loss(model, {key: value.to(loaded.device) for key, value in inputs.items()})
            total, tokens = total + loss.item(), tokens + count
    return HeldOut(total / tokens, tokens)
