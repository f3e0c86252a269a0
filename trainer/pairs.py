"""Log-probabilities of the completions in a batch of preferences, each prompt computed once (trainer/tree.py).

A prompt is in its chosen and its rejected row, and for KTO in the row and in its mismatched one. It knows no losses,
and nothing of where rows come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import FusedCausalLMOutput

from adapters.examples import Example
from trainer.settings.data import DataSettings
from trainer.tokens import IGNORED, render
from trainer.tree import WIDEST, Tree


def scores(model: Any, inputs: dict[str, torch.Tensor], *, widest: int = WIDEST) -> FusedCausalLMOutput:
    """What TRL's fused head says of padded rows, by way of trees; the head is computed where a completion is predicted.

    `inputs` are `input_ids`, `attention_mask` and `completion_mask`, (rows, longest), as TRL's collators make them: the
    row half a batch further on has the same prompt. All fields are (rows, longest - 1), and zero outside of
    completions; only `log_probs` (nats) has a gradient.
    """
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    rows = [ids[:length] for ids, length in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
    begins = [mask.index(1) for mask in inputs["completion_mask"].tolist()]
    device = inputs["input_ids"].device
    where: list[tuple[int, int]] = []
    parts: list[tuple[torch.Tensor, ...]] = []
    for group, tree in _trees(rows, range(len(rows) // 2), widest):
        spots = [(place, row, at) for place, row in enumerate(group) for at in range(begins[row], len(rows[row]))]
        where += [(row, at - 1) for _, row, at in spots]
        predicting = [tree.paths[place][at - 1] for place, _, at in spots]
        parts.append(_judged(model, tree, predicting, [rows[row][at] for _, row, at in spots], device))
    row_at = tuple(torch.tensor(where, device=device).T)
    empty = inputs["input_ids"][:, 1:]
    fields = [torch.cat(part) for part in zip(*parts, strict=True)]
    put = [torch.zeros_like(empty, dtype=field.dtype).index_put(row_at, field) for field in fields]
    return FusedCausalLMOutput(log_probs=put[0], entropy=put[1], mean_logits=put[2], is_top1=put[3])


def _trees(rows: Sequence[list[int]], pairs: Sequence[int], widest: int) -> Iterator[tuple[list[int], Tree]]:
    """The pairs' rows, in as few trees as their width allows, each with the numbers of its rows."""
    group = [row for pair in pairs for row in (pair, pair + len(rows) // 2)]
    tree = Tree.of([rows[row] for row in group])
    if len(tree.ids) <= widest or len(pairs) == 1:
        yield group, tree
        return
    half = len(pairs) // 2
    yield from _trees(rows, pairs[:half], widest)
    yield from _trees(rows, pairs[half:], widest)


def _judged(
    model: Any, tree: Tree, predicting: Sequence[int], predicted: Sequence[int], device: torch.device
) -> tuple[torch.Tensor, ...]:
    """Log-probability, entropy, mean logit and whether it is the likeliest, of each token predicted at each node."""
    nodes, which = torch.tensor(predicting, device=device).unique(return_inverse=True)
    inputs = {key: value.to(device) for key, value in tree.inputs().items()}
    logits = model(**inputs, use_cache=False, logits_to_keep=nodes).logits[0].float()
    labels = torch.tensor(predicted, device=device)
    log_probs = logits.log_softmax(dim=-1)
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
        aside = (entropy[which], logits.mean(dim=-1)[which], logits.argmax(dim=-1)[which] == labels)
    return log_probs[which, labels], *aside


@dataclass(frozen=True, slots=True)
class Answers:
    """A prompt with one answer or more to it, as token ids; each answer ends with the token that ends a turn."""

    prompt: list[int]
    answers: list[list[int]]

    @classmethod
    def to(cls, tokenizer: Any, example: Example, completions: Sequence[str], data: DataSettings) -> Answers | None:
        """Rendered by the served template, or `None` where one of them is longer than allowed."""
        asked = [Example(messages=example.messages, completion=completion) for completion in completions]
        found = render(tokenizer, asked, max_tokens=data.max_tokens, overlong=data.overlong).rows
        if len(found) < len(completions):
            return None
        begin = found[0].labels.count(IGNORED)
        return cls(found[0].ids[:begin], [row.ids[begin:] for row in found])
