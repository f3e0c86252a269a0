"""What many answers are worth: each figure of each version, over the rows that all versions answered. Pure.

A row that one version failed to answer is left out of the comparison for all of them, and counted by the caller: a
failure is never a zero. Each measure is a function of row weights (see `statistics`), so that every one of them has an
interval; scikit-learn and sacrebleu are the oracles of the formulas here (tests/trainer/gate/test_figures.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from adapters.examples import Example
from trainer.gate.statistics import Figure, Floats, mean, ratio
from trainer.gate.texts import Scores, is_refusal, is_repetitive, normal, score

MOST_LABELS = 200
"""Completions make labels of a small set when there are at most so many different ones…"""
ROWS_A_LABEL = 5
"""…and at least so many rows for each of them, on average."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One version on one row; None is what was not asked or not answered. Log-probabilities are of tokens, in nats.

    `labels` are the summed log-probabilities of every label of a small set, by its normal form.
    """

    answer: str | None = None
    finish: str | None = None
    logprobs: tuple[float, ...] | None = None
    rejected: tuple[float, ...] | None = None
    labels: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: `of` maps a version to its function of row weights over `rows` (indices), `better` says which way.

    `each` maps a version to the value of each row, where the figure is the mean of values that are 0 or 1.
    """

    name: str
    rows: tuple[int, ...]
    of: Mapping[str, Figure]
    better: Literal["up", "down", "neither"] = "up"
    each: Mapping[str, Floats] = field(default_factory=dict)

    def value(self, version: str) -> float:
        return float(self.of[version](np.ones((1, len(self.rows))))[0])


Versions = Mapping[str, Sequence[Outcome]]
_MEANS: tuple[tuple[str, Callable[[Scores], float | None], bool], ...] = (
    ("exact_match", lambda scores: scores.exact_match, True),
    ("token_f1", lambda scores: scores.token_f1, False),
    ("rouge_l", lambda scores: scores.rouge_l, False),
    ("chrf", lambda scores: scores.chrf, False),
    ("json_valid", lambda scores: scores.json_valid, True),
)


def measures(rows: Sequence[Example], versions: Versions, *, labels: frozenset[str] | None = None) -> list[Measure]:
    """Every figure that these rows and outcomes allow. `labels` are the normal forms of a label task's answers."""
    found = _of_answers(rows, versions, labels) + _of_losses(rows, versions) + _of_preferences(rows, versions)
    # What is only looked at comes after what is better or worse.
    return sorted((measure for measure in found if measure.rows), key=lambda measure: measure.better == "neither")


def label_set(completions: Sequence[str]) -> frozenset[str] | None:
    """The labels, if these completions are those of a small set; else None."""
    distinct = frozenset(map(normal, completions))
    small = 2 <= len(distinct) <= MOST_LABELS and len(completions) >= ROWS_A_LABEL * len(distinct)
    return distinct if small else None


def is_reference(row: Example) -> bool:
    """Whether the completion is one to imitate."""
    return row.kind != "label" or bool(row.label)


def _of_answers(rows: Sequence[Example], versions: Versions, labels: frozenset[str] | None) -> list[Measure]:
    kept = [n for n, row in enumerate(rows) if all(outcomes[n].answer is not None for outcomes in versions.values())]
    texts = {name: [outcomes[n].answer or "" for n in kept] for name, outcomes in versions.items()}
    found = [
        _mean("length", kept, {name: [len(text) for text in said] for name, said in texts.items()}),
        _mean("refusals", kept, {name: list(map(is_refusal, said)) for name, said in texts.items()}, binary=True),
        _mean("repetition", kept, {name: list(map(is_repetitive, said)) for name, said in texts.items()}, binary=True),
    ]
    judged = [n for n in kept if is_reference(rows[n])]
    scores = {
        name: [score(outcomes[n].answer or "", rows[n].completion) for n in judged]
        for name, outcomes in versions.items()
    }
    for name, take, binary in _MEANS:
        own = [k for k in range(len(judged)) if all(take(of[k]) is not None for of in scores.values())]
        values = {who: [take(of[k]) or 0.0 for k in own] for who, of in scores.items()}
        found.append(_mean(name, [judged[k] for k in own], values, binary=binary, better="up"))
    sums = {name: _bleu(np.array([one.bleu for one in of], dtype=np.float64)) for name, of in scores.items() if of}
    found.append(Measure("bleu", tuple(judged), sums))
    if labels is not None and judged:
        found += _of_labels(rows, judged, versions, labels)
    return found


def _of_losses(rows: Sequence[Example], versions: Versions) -> list[Measure]:
    kept = tuple(
        n
        for n, row in enumerate(rows)
        if is_reference(row) and all(outcomes[n].logprobs for outcomes in versions.values())
    )
    nats = {name: np.array([-sum(outcomes[n].logprobs or ()) for n in kept]) for name, outcomes in versions.items()}
    tokens = {
        name: np.array([len(outcomes[n].logprobs or ()) for n in kept], dtype=np.float64)
        for name, outcomes in versions.items()
    }
    return [Measure("loss", kept, {name: ratio(nats[name], tokens[name]) for name in versions}, "down")]


def _of_preferences(rows: Sequence[Example], versions: Versions) -> list[Measure]:
    """What DPO and KTO call the reward: by how much likelier an answer is than it was to the base."""
    base = versions.get("base")
    if base is None:
        return []
    pairs = [
        n for n, row in enumerate(rows) if row.rejected is not None and all(o[n].rejected for o in versions.values())
    ]
    pairs = [n for n in pairs if all(o[n].logprobs for o in versions.values())]
    right = {}
    for name, outcomes in versions.items():
        margins = [
            _gain(outcomes[n].logprobs, base[n].logprobs) - _gain(outcomes[n].rejected, base[n].rejected) for n in pairs
        ]
        right[name] = [0.5 if abs(margin) < 1e-6 else float(margin > 0) for margin in margins]
    thumbs = [n for n, row in enumerate(rows) if row.kind == "label" and all(o[n].logprobs for o in versions.values())]
    good = np.array([bool(rows[n].label) for n in thumbs])
    found = [_mean("preference_accuracy", pairs, right, binary=True, better="up")]
    if good.any() and not good.all():
        rewards = {
            name: np.array([_gain(outcomes[n].logprobs, base[n].logprobs) for n in thumbs])
            for name, outcomes in versions.items()
        }
        found.append(Measure("thumbs_auc", tuple(thumbs), {name: auc(good, of) for name, of in rewards.items()}))
    return found


def _of_labels(
    rows: Sequence[Example], judged: Sequence[int], versions: Versions, labels: frozenset[str]
) -> list[Measure]:
    wanted = [normal(rows[n].completion) for n in judged]
    said = {name: [normal(outcomes[n].answer or "") for n in judged] for name, outcomes in versions.items()}
    right = {name: [float(a == b) for a, b in zip(of, wanted, strict=True)] for name, of in said.items()}
    found = [_mean("accuracy", judged, right, binary=True, better="up")]
    for what in ("precision", "recall", "f1"):
        of = {name: macro(wanted, answers, what) for name, answers in said.items()}
        found.append(Measure(f"macro_{what}", tuple(judged), of))
    scored = [n for n in judged if all(labels <= outcomes[n].labels.keys() for outcomes in versions.values())]
    wanted = [normal(rows[n].completion) for n in scored]
    if len(set(wanted)) > 1:
        of = {
            name: _macro_auc(wanted, [outcomes[n].labels for n in scored], labels)
            for name, outcomes in versions.items()
        }
        found.append(Measure("roc_auc", tuple(scored), of))
    return found


def macro(wanted: Sequence[str], said: Sequence[str], what: str) -> Figure:
    """Macro-averaged precision, recall or F1 over the labels that are wanted: an answer that is no label is simply
    wrong. As scikit-learn's with `labels` of those wanted and `zero_division=0`."""
    names = sorted(set(wanted))
    is_wanted = np.array([[label == name for name in names] for label in wanted], dtype=np.float64)
    is_said = np.array([[label == name for name in names] for label in said], dtype=np.float64)

    def figure(weights: Floats) -> Floats:
        true, wants, says = weights @ (is_wanted * is_said), weights @ is_wanted, weights @ is_said
        below = {"precision": says, "recall": wants, "f1": (wants + says) / 2}[what]
        each = np.divide(true, below, out=np.zeros_like(true), where=below > 0)
        present = wants > 0  # a draw may miss a label altogether
        return np.asarray((each * present).sum(axis=1) / present.sum(axis=1), dtype=np.float64)

    return figure


def auc(good: np.ndarray, scores: Floats) -> Figure:
    """The area under the ROC curve: how often a good row has the larger score, a tie counting half."""
    above, below = scores[good][:, None], scores[~good][None, :]
    wins = (above > below) + 0.5 * (above == below)

    def figure(weights: Floats) -> Floats:
        of_good, of_bad = weights[:, good], weights[:, ~good]
        pairs = of_good.sum(axis=1) * of_bad.sum(axis=1)
        won = ((of_good @ wins) * of_bad).sum(axis=1)
        found: Floats = np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return found

    return figure


def _macro_auc(wanted: Sequence[str], of: Sequence[Mapping[str, float]], labels: frozenset[str]) -> Figure:
    """Each label against the rest by its share of the probability of all labels, averaged."""
    figures = []
    for label in sorted(set(wanted)):
        share = [math.exp(one[label] - _log_sum([one[other] for other in labels])) for one in of]
        figures.append(auc(np.array([name == label for name in wanted]), np.array(share)))
    return lambda weights: np.mean([figure(weights) for figure in figures], axis=0)


def _bleu(counts: Floats) -> Figure:
    """Corpus BLEU of sacrebleu's counts, smoothed as it does ("exp")."""

    def figure(weights: Floats) -> Floats:
        sums = weights @ counts
        right, total, length, wanted = sums[:, :4], sums[:, 4:8], sums[:, 8], sums[:, 9]
        none = (right == 0) & (total > 0)
        halved = np.exp2(np.cumsum(none, axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(none, 1 / (halved * total), right / total)
            logs = np.where(total > 0, np.log(precision), -np.inf)
            brevity = np.minimum(1.0, np.exp(1 - wanted / length))
            values = 100 * brevity * np.exp(logs.mean(axis=1))
        return np.where((length > 0) & (right.sum(axis=1) > 0), values, 0.0)

    return figure


def _mean(
    name: str,
    rows: Sequence[int],
    values: Mapping[str, Sequence[float]],
    *,
    binary: bool = False,
    better: Literal["up", "down", "neither"] = "neither",
) -> Measure:
    each = {who: np.array(of, dtype=np.float64) for who, of in values.items()}
    return Measure(name, tuple(rows), {who: mean(of) for who, of in each.items()}, better, each if binary else {})


def _gain(now: Sequence[float] | None, before: Sequence[float] | None) -> float:
    return sum(now or ()) - sum(before or ())


def _log_sum(logs: Sequence[float]) -> float:
    most = max(logs)
    return most + math.log(sum(math.exp(value - most) for value in logs))
