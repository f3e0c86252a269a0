"""Examples → token ids as the engine will see them, and those → batches. It knows no model and no rows' files.

A row is the prompt rendered by the served chat template (up to where the answer begins), then the completion and the
token that ends a turn. Only the latter two are supervised. An engine given the same prompt starts from the same ids.

On a CPU a batch's rows are laid out in a single sequence (trainer/tree.py): what rows begin with alike (system prompt
and template) is computed once, and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoTokenizer

from adapters.examples import Example
from trainer.config import RunSettings
from trainer.errors import InvalidConfig
from trainer.tree import WIDEST, Tree

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Row:
    """`labels` are the ids where supervised, IGNORED elsewhere; both are as long as the row."""

    ids: list[int]
    labels: list[int]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Rendered:
    """What became of the examples. `dropped` were longer than allowed, `cut` lost the end of their completion."""

    rows: list[Row]
    dropped: int
    cut: int


def render(
    tokenizer: Any, examples: Sequence[Example], *, max_tokens: int, overlong: Literal["drop", "cut"]
) -> Rendered:
    """Tokenize with the tokenizer's own chat template. A row that keeps no supervised token is dropped."""
    ending = _turn_end(tokenizer)
    rows: list[Row] = []
    dropped = cut = 0
    for example in examples:
        prompt = prompt_ids(tokenizer, example.messages)
        answer = [*tokenizer(example.completion, add_special_tokens=False).input_ids, *ending]
        room = max_tokens - len(prompt)
        if room < 1 or (room < len(answer) and overlong == "drop"):
            dropped += 1
            continue
        cut += room < len(answer)
        answer = answer[:room]
        rows.append(Row(prompt + answer, [IGNORED] * len(prompt) + answer, example.weight))
    return Rendered(rows, dropped, cut)


def tokenizer_of(settings: RunSettings) -> Any:
    """The base model's tokenizer, as `tokenizer_at` has it."""
    return tokenizer_at(settings.model_path or settings.base_model)


def tokenizer_at(source: Path | str) -> Any:
    """The tokenizer in a directory (a path: without any network) or of a name, with a chat template and a padding
    token. Raises `InvalidConfig`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=isinstance(source, Path))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InvalidConfig(f"the tokenizer cannot be loaded ({reason})", "check base_model and model_path") from error
    if tokenizer.chat_template is None:
        raise InvalidConfig("the base model has no chat template", "use its instruction-tuned variant")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def prompt_ids(tokenizer: Any, messages: list[dict[str, Any]]) -> list[int]:
    """A chat's token ids up to where the answer begins. Raises `InvalidConfig` if the template refuses it."""
    text = _chat(tokenizer, messages, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def _chat(tokenizer: Any, messages: list[dict[str, Any]], **options: Any) -> str:
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except Exception as error:  # templates raise what they like, through Jinja
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InvalidConfig(
            f"the base model's chat template does not take a row ({reason})", "use roles that the template knows"
        ) from error
    return text


def _turn_end(tokenizer: Any) -> list[int]:
    """What follows an answer in the template, up to its first special token: without it a model never stops."""
    mark = "Tuneloop"
    text = _chat(tokenizer, [{"role": "user", "content": "x"}, {"role": "assistant", "content": mark}])
    ids: list[int] = tokenizer(text[text.rindex(mark) + len(mark) :], add_special_tokens=False).input_ids
    special = set(tokenizer.all_special_ids)
    for position, token in enumerate(ids):
        if token in special:
            return ids[: position + 1]
    return [tokenizer.eos_token_id]


class Collate:
    """A batch of rows as the model's inputs, in one sequence if `packed` (see the top), else padded on the right.

    Returns `input_ids` and `attention_mask`, and `position_ids` if in one sequence: tensors of (1, tokens) or
    (rows, longest); the mask is then (1, 1, tokens, tokens) boolean or (rows, longest). And of each supervised token,
    in tensors of (supervised,): its id (`labels`), its row's weight (`weights`), and in `at` the place that predicts
    it, counted row by row through `input_ids`.
    """

    def __init__(self, *, packed: bool, pad_id: int) -> None:
        self.packed = packed
        self.pad_id = pad_id

    def __call__(self, batch: Sequence[Any]) -> dict[str, torch.Tensor]:
        rows = [row if isinstance(row, Row) else Row(row["input_ids"], row["labels"], row["weight"]) for row in batch]
        tree = Tree.of([row.ids for row in rows]) if self.packed else None
        if tree is not None and len(tree.ids) <= WIDEST:
            return {**tree.inputs(), **_predicted(rows, tree.paths)}
        longest = max(len(row.ids) for row in rows)
        lack = [longest - len(row.ids) for row in rows]
        return {
            "input_ids": torch.tensor([row.ids + [self.pad_id] * n for row, n in zip(rows, lack, strict=True)]),
            "attention_mask": torch.tensor([[1] * len(row.ids) + [0] * n for row, n in zip(rows, lack, strict=True)]),
            **_predicted(rows, [range(n * longest, (n + 1) * longest) for n in range(len(rows))]),
        }


def _predicted(rows: Sequence[Row], places: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """What is to be predicted, of rows whose tokens are at these places."""
    found = [
        (place, label, row.weight)
        for row, own in zip(rows, places, strict=True)
        for place, label in zip(own, row.labels[1:], strict=False)  # a place predicts the next token
        if label != IGNORED
    ]
    at, labels, weights = zip(*found, strict=True)
    return {"at": torch.tensor(at), "labels": torch.tensor(labels), "weights": torch.tensor(weights)}
