"""Which rows the versions are asked about, and the requests that ask. It sends none.

A row is asked for its answer (greedy, as a client would ask: the engine renders the template), and for the
log-probabilities of its completion (teacher-forced, by token ids rendered as for training). Where the completions are a
few labels, each label's log-probability is asked for, too: that is what a ROC curve is drawn from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from adapters.examples import Example
from trainer.gate.texts import normal

UNKNOWN_CONTEXT = 2048
"""Tokens, where the gateway does not know its engine's context."""
LABELS_ASKED = 4
"""With more labels than these a ROC curve would take more requests than everything else together."""


@dataclass(frozen=True, slots=True)
class Forced:
    """A rendered row: the log-probabilities of `ids[start:]` are asked for."""

    ids: list[int]
    start: int


@dataclass(frozen=True, slots=True)
class Question:
    """One row and its renderings; `answers` is how many tokens an answer may have, 0 where none is asked for."""

    example: Example
    answers: int
    forced: Forced | None = None
    rejected: Forced | None = None
    labels: dict[str, Forced] = field(default_factory=dict)

    def requests(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """What is asked, by name: path and body without the model."""
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        if self.answers:
            body = {"messages": self.example.messages, "max_tokens": self.answers, "temperature": 0}
            found["answer"] = ("/chat/completions", body)
        forced = {"forced": self.forced, "rejected": self.rejected}
        forced |= {f"label:{name}": one for name, one in self.labels.items()}
        for name, one in forced.items():
            if one is not None:
                # One token must be generated: it is thrown away.
                body = {"prompt": one.ids, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
                found[name] = ("/completions", body)
        return found

    def start_of(self, name: str) -> int:
        """Where the supervised tokens of a teacher-forced request begin."""
        one = {"forced": self.forced, "rejected": self.rejected}.get(name) or self.labels[name.removeprefix("label:")]
        return one.start


@dataclass(frozen=True, slots=True)
class Asked:
    """`overlong` rows do not fit into the engine's context, or into `data.max_tokens`; they are not asked."""

    questions: list[Question]
    overlong: int


def chosen(rows: Sequence[Example], most: int) -> list[Example]:
    """At most `most` rows, the same ones in every round as long as they exist, whatever else comes and goes."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"gate:{row.to_json()}".encode()).digest())[:most]


def asked(
    tokenizer: Any | None,
    rows: Sequence[Example],
    *,
    answer_tokens: int,
    context: int,
    labels: frozenset[str] | None = None,
    forced: bool = True,
) -> Asked:
    """The questions of `rows`. Without a tokenizer, or without `forced`, no log-probabilities are asked for."""
    questions, overlong = [], 0
    names = _spellings(rows, labels) if labels is not None and len(labels) <= LABELS_ASKED else {}
    for row in rows:
        if tokenizer is None or not forced:
            questions.append(Question(row, answer_tokens))
            continue
        one = _forced(tokenizer, row, row.completion, context)
        worse = None if row.rejected is None else _forced(tokenizer, row, row.rejected, context)
        if one is None or (row.rejected is not None and worse is None):
            overlong += 1
            continue
        others = {name: _forced(tokenizer, row, text, context) for name, text in names.items()}
        fitting = {name: other for name, other in others.items() if other is not None}
        questions.append(Question(row, min(answer_tokens, context - one.start), one, worse, fitting))
    return Asked(questions, overlong)


def _forced(tokenizer: Any, row: Example, completion: str, context: int) -> Forced | None:
    from trainer.tokens import IGNORED, render  # imports torch

    example = row.model_copy(update={"completion": completion})
    rendered = render(tokenizer, [example], max_tokens=context - 1, overlong="drop").rows
    if not rendered:
        return None
    labels = rendered[0].labels
    return Forced(rendered[0].ids, next(n for n, label in enumerate(labels) if label != IGNORED))


def _spellings(rows: Sequence[Example], labels: frozenset[str]) -> dict[str, str]:
    """Each label as the rows write it."""
    found: dict[str, str] = {}
    for row in rows:
        if normal(row.completion) in labels:
            found.setdefault(normal(row.completion), row.completion)
    return found
