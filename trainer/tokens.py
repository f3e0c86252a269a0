"""Examples → token ids as the engine will see them, and those → batches. It knows no model and no rows' files.

A row is the prompt rendered by the served chat template (up to where the answer begins), then the completion and the
token that ends a turn. Only the latter two are supervised. An engine given the same prompt starts from the same ids.

On a CPU rows of a batch are laid one after another in a single sequence, behind the beginning that all of them share
(system prompt and template): it is computed once, and nothing is padded. A mask lets each row see that beginning and
itself only, so that every logit is what the row alone would give (tests/trainer/test_batches.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoTokenizer

from adapters.examples import Example
from trainer.config import RunSettings
from trainer.errors import InvalidConfig

IGNORED = -100
_WIDEST = 2048
"""The mask of a laid-out batch is as long as wide: beyond this many tokens it costs more than padding does."""


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
    """The base model's tokenizer, with a chat template and a padding token. Raises `InvalidConfig`."""
    offline, source = settings.model_path is not None, str(settings.model_path or settings.base_model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=offline)
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

    Returns `input_ids`, `labels`, `weights` and `attention_mask`, and `position_ids` if in one sequence: tensors of
    (1, tokens) or (rows, longest); the mask is then (1, 1, tokens, tokens) boolean or (rows, longest).
    """

    def __init__(self, *, packed: bool, pad_id: int) -> None:
        self.packed = packed
        self.pad_id = pad_id

    def __call__(self, batch: Sequence[Any]) -> dict[str, torch.Tensor]:
        rows = [row if isinstance(row, Row) else Row(row["input_ids"], row["labels"], row["weight"]) for row in batch]
        shared = _shared(rows)
        if self.packed and shared + sum(len(row.ids) - shared for row in rows) <= _WIDEST:
            return _in_one_sequence(rows, shared)
        return _padded(rows, self.pad_id)


def _shared(rows: Sequence[Row]) -> int:
    """How many tokens all rows begin with; each keeps at least one unsupervised token of its own after them."""
    first = rows[0].ids
    most = min(next(i for i, label in enumerate(row.labels) if label != IGNORED) for row in rows) - 1
    length = 0
    while length < most and all(row.ids[length] == first[length] for row in rows):
        length += 1
    return length


def _in_one_sequence(rows: Sequence[Row], shared: int) -> dict[str, torch.Tensor]:
    ids, labels = list(rows[0].ids[:shared]), [IGNORED] * shared
    positions, owners, weights = list(range(shared)), [0] * shared, [0.0] * shared
    for owner, row in enumerate(rows, 1):
        own = len(row.ids) - shared
        ids += row.ids[shared:]
        labels += row.labels[shared:]
        positions += range(shared, len(row.ids))
        owners += [owner] * own
        weights += [row.weight] * own
    whose = torch.tensor(owners)
    seen = (whose[:, None] == whose[None, :]) | (whose[None, :] == 0)
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([positions]),
        "weights": torch.tensor([weights]),
        "attention_mask": seen.tril()[None, None],
    }


def _padded(rows: Sequence[Row], pad_id: int) -> dict[str, torch.Tensor]:
    longest = max(len(row.ids) for row in rows)
    lack = [longest - len(row.ids) for row in rows]
    return {
        "input_ids": torch.tensor([row.ids + [pad_id] * n for row, n in zip(rows, lack, strict=True)]),
        "labels": torch.tensor([row.labels + [IGNORED] * n for row, n in zip(rows, lack, strict=True)]),
        "weights": torch.tensor([[row.weight] * longest for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row.ids) + [0] * n for row, n in zip(rows, lack, strict=True)]),
    }
