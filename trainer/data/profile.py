"""What rows look like, counted while they stream by: kinds, shapes, labels, lengths, personal data, errors.

It keeps twelve bytes a row (the lengths) and counts; no text but short labels, and no personal data.
"""

from __future__ import annotations

from array import array
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from adapters.examples import Example
from trainer.data.personal import Found
from trainer.data.rows import Parsed
from trainer.data.sift import asked
from trainer.errors import InvalidConfig

SHOWN = 20
CHARACTERS_A_TOKEN = 4
_LABELS = 500
"""So many different short answers are labels of a set; with more, they are answers."""
_LABEL_LENGTH = 60
_FINDS = 5
_BATCH, _BATCH_CHARACTERS = 1024, 4_000_000


class Profile:
    """Feed it with `parsed`, `bad`, `kept`; read the counters."""

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self.kinds: Counter[str] = Counter()
        self.shapes: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()
        self.judged: Counter[str] = Counter()
        self.answers: Counter[str] | None = Counter()
        self.personal: Counter[str] = Counter()
        self.personal_rows = 0
        self.finds: list[str] = []
        self.errors: list[str] = []
        self.bad = self.earlier = self.spaced = 0
        self.characters, self.tokens = array("I"), array("I")
        self._tokenizer = tokenizer
        self._texts: list[str] = []
        self._waiting = 0

    def parsed(self, row: Parsed) -> None:
        """A row was read."""
        self.shapes[row.shape] += 1
        self.earlier += row.earlier
        if row.unused:
            self.unused.update(row.unused)

    def failed(self, error: str) -> None:
        """A row could not be read; the first twenty are told."""
        self.bad += 1
        if len(self.errors) < SHOWN:
            self.errors.append(error)

    def kept(self, example: Example, found: list[Found], where: str) -> None:
        """An example, after masking, and what was found in it."""
        self.kinds[example.kind] += 1
        if example.label is not None:
            self.judged["good" if example.label else "bad"] += 1
        self._answered(example.completion)
        self.spaced += example.completion != example.completion.strip()
        if found:
            self.personal_rows += 1
            self.personal.update(one.kind for one in found)
            if len(self.finds) < SHOWN and sum(found[0].kind in told for told in self.finds) < _FINDS:
                self.finds.append(f"{where}: {found[0].kind} … {' '.join(found[0].around.split())} …")
        text = f"{_all_of(example)}\n{max(example.completion, example.rejected or '', key=len)}"
        self.characters.append(min(len(text), 2**32 - 1))
        if self._tokenizer is not None:
            self._texts.append(text)
            self._waiting += len(text)
            if len(self._texts) == _BATCH or self._waiting > _BATCH_CHARACTERS:
                self.done()

    def done(self) -> None:
        """Call when the last row is in."""
        if self._tokenizer is not None and self._texts:
            self.tokens.extend(self._tokenizer.lengths(self._texts))
            self._texts, self._waiting = [], 0

    def lengths(self) -> tuple[np.ndarray[Any, Any], str]:
        """The length of each row, prompt and answer, and in what it is counted: tokens, or about tokens."""
        if self._tokenizer is not None:
            return np.frombuffer(self.tokens, np.uint32), "tokens"
        return np.frombuffer(self.characters, np.uint32) // CHARACTERS_A_TOKEN, "tokens, taken as 4 characters each"

    def _answered(self, answer: str) -> None:
        if self.answers is None:
            return
        if len(answer) > _LABEL_LENGTH or (len(self.answers) == _LABELS and answer not in self.answers):
            self.answers = None
        else:
            self.answers[answer] += 1


class Tokenizer(Protocol):
    def lengths(self, texts: list[str]) -> list[int]: ...


class FastTokenizer:
    """A base model's tokenizer.json, read without torch or transformers. Raises `InvalidConfig`."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Rust

        try:
            self._tokenizer = Rust.from_file(str(path))
        except Exception as error:  # it raises plain Exceptions
            raise InvalidConfig(
                f"{path} is no tokenizer that can be read", "name the base model's directory"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def lengths(self, texts: list[str]) -> list[int]:
        return [len(found.ids) for found in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def tokenizer_of(model_path: Path | None, base_model: str | None) -> FastTokenizer | None:
    """The tokenizer of a local base model, or of one whose files were downloaded before; None if there is none here."""
    if model_path is not None and (model_path / "tokenizer.json").is_file():
        return FastTokenizer(model_path / "tokenizer.json")
    if base_model is None or model_path is not None:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base_model, "tokenizer.json")
    except HFValidationError:
        return None
    return FastTokenizer(Path(found)) if isinstance(found, str) else None


def _all_of(example: Example) -> str:
    """The prompt's texts, the system prompt too."""
    first = example.messages[0]
    system = first.get("content") if first["role"] in ("system", "developer") else None
    return f"{system}\n{asked(example)}" if isinstance(system, str) else asked(example)
