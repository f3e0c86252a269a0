"""The feedback compiler: one stream of mixed feedback in; rows for SFT, pairs for DPO and labels for KTO out.

    corrections, demonstrations   an SFT row, and a pair: the correction over the original
    preferences                   a pair
    thumbs, ratings               a KTO label; a good answer is an SFT row too; one user's thumbs on two answers, a pair
    comments                      no row

Each row names the feedback and the answer it comes from; a feedback is in one row of a method at most. What makes no
row is counted under its reason. Pure: the same feedback makes the same rows, in whatever order it came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from adapters.examples import Example
from adapters.judgements import Judged
from trainer.feedback import pairs
from trainer.feedback.heard import Heard, listen, row
from trainer.feedback.votes import Verdict, judge
from trainer.feedback.weights import Method, weigh
from trainer.settings.rounds import FeedbackSettings

Recipe = Literal["sft", "dpo", "kto"]

CORRECTIONS, LIKED = "corrections and demonstrations", "liked answers"
CORRECTED_AGAIN = "corrections of an answer that was corrected again: the latest counts"


@dataclass(frozen=True, slots=True)
class Balance:
    """KTO's different labels, and where TRL wants a side's weight, the other's being 1: Σ good over Σ bad in 1 to 1.33.

    Set one of the two weights, not both.
    """

    good: int
    bad: int

    @property
    def desirable(self) -> tuple[float, float]:
        return (self.bad / max(self.good, 1), self.bad / max(self.good, 1) * 1.33)

    @property
    def undesirable(self) -> tuple[float, float]:
        return (self.good / max(self.bad, 1) / 1.33, self.good / max(self.bad, 1))

    def __str__(self) -> str:
        if not self.good or not self.bad:
            return f"{self.good} good and {self.bad} bad labels: KTO needs both"
        text = f"{self.good} good and {self.bad} bad labels"
        if 1 <= self.good / self.bad <= 1.33:
            return text + ": balanced"
        name, (low, high) = (
            ("undesirable_weight", self.undesirable) if self.good > self.bad else ("desirable_weight", self.desirable)
        )
        return text + f": preference.{name} belongs between {low:.2f} and {high:.2f}"


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a stream of feedback came to. `counts`: how many of what, and how many make no row, by reason."""

    methods: dict[Recipe, Method]
    balance: Balance
    counts: dict[str, int]

    def rows(self, recipe: Recipe) -> list[Example]:
        """The method's rows, the oldest answer first, with weights of a mean of 1."""
        return self.methods[recipe].rows


def compile(judged: Iterable[Judged], settings: FeedbackSettings) -> Compiled:  # noqa: A001  # the package's one verb
    """All methods' rows of a stream of judged answers. Of each feedback id the stream must have one text."""
    counts: Counter[str] = Counter()
    answers = list(judged)
    heard = listen(answers, user_rows=settings.user_rows, counts=counts)
    corrections = _corrections(heard, counts)
    verdicts = judge(
        heard,
        corrected={each.about.inference_id for each in corrections},
        scales=settings.scales,
        distrust=settings.distrust,
        counts=counts,
    )
    pairwise = pairs.corrected(corrections, counts)
    paired = {pair.feedback_ids[0] for pair in pairwise}
    pairwise += pairs.preferred([each for each in heard if each.said.id not in paired], counts)
    pairwise += pairs.mined(verdicts, pairwise, counts)
    labels = [made for verdict in verdicts if (made := _label(verdict, counts))]
    liked = [label for label in labels if label.label]
    written = [
        made
        for each in corrections
        if (made := row(each.about, [each], counts, kind="demonstration", completion=each.correction))
    ]
    counts |= {CORRECTIONS: len(written), LIKED: len(liked)}
    shares = _shares(answers, settings)
    found: dict[Recipe, Sequence[Example]] = {"sft": written + liked, "dpo": pairwise, "kto": labels}
    methods = {recipe: _weighed(rows, shares, settings, counts) for recipe, rows in found.items()}
    good = sum(bool(label.label) for label in methods["kto"].different)
    balance = Balance(good, len(methods["kto"].different) - good)
    return Compiled(methods, balance, {what: count for what, count in sorted(counts.items()) if count})


def _corrections(heard: Iterable[Heard], counts: Counter[str]) -> list[Heard]:
    latest: dict[str, Heard] = {}
    for each in heard:
        if each.correction is not None:
            counts[CORRECTED_AGAIN] += each.about.inference_id in latest
            latest[each.about.inference_id] = each
    return list(latest.values())


def _label(verdict: Verdict, counts: Counter[str]) -> Example | None:
    fields = {"kind": "label", "completion": verdict.about.answer, "label": verdict.good}
    return row(verdict.about, verdict.by, counts, **fields)


def _shares(answers: Iterable[Judged], settings: FeedbackSettings) -> dict[str, float]:
    """Each variant's target share; equal ones for the variants that answered, unless the settings name them."""
    if settings.shares is not None:
        total = sum(settings.shares.values())
        return {name: share / total for name, share in settings.shares.items()} if total else {}
    seen = sorted({answer.variant for answer in answers})
    return {name: 1 / len(seen) for name in seen}


def _weighed(
    rows: Iterable[Example], shares: dict[str, float], settings: FeedbackSettings, counts: Counter[str]
) -> Method:
    ordered = sorted(rows, key=lambda row: (row.created_at, row.inference_id, row.kind, row.feedback_ids))
    of_method: Counter[str] = Counter()
    caps = {"largest_weight": settings.largest_weight, "user_share": settings.user_share}
    method = weigh(ordered, shares, counts=of_method, **caps)
    counts.update(of_method)
    return method
