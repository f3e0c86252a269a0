"""What one answer is worth beside the answer that somebody wrote: numbers from two texts. Pure.

Comparisons are forgiving of what no reader minds: white space around and within, upper and lower case, and in JSON the
order of keys and the spaces. They are not forgiving of anything else: no articles or punctuation are thrown away.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

_WORD = re.compile(r"\w+|[^\w\s]")
_SPACE = re.compile(r"\s+")
_REFUSAL = re.compile(
    r"\b(?:i'?m|i am|we are|we're) (?:very |really |so |truly )?(?:sorry|unable|not able|afraid i)\b"
    r"|\bi (?:can'?t|cannot|can not|won'?t|will not|am not able to) "
    r"(?:help|assist|answer|provide|comply|do that|fulfil|fulfill|discuss|create|generate|offer)\b"
    r"|\bas an? (?:ai|artificial intelligence)(?: language)?(?: model| assistant)?\b"
    r"|\bi (?:do not|don't) have (?:the ability|access)\b"
)
_LOOKED_AT = 200
"""A refusal says so at once; further on the same words may be a quotation."""
_GRAM = 3
_LEAST_GRAMS = 8
ENOUGH_REPEATED = 0.5


@dataclass(frozen=True, slots=True)
class Scores:
    """All of 0 to 1 except `chrf` and `bleu` (see `figures`); a JSON figure is None where the reference is no JSON."""

    exact_match: float
    token_f1: float
    rouge_l: float
    chrf: float
    bleu: tuple[int, ...]
    """What corpus BLEU is summed from: 4 counts, 4 totals, the answer's length, the reference's."""
    json_valid: float | None


def score(answer: str, reference: str) -> Scores:
    """Every figure of one answer. Labels and lengths are `figures`' business."""
    chrf, bleu = _sacrebleu()
    found = bleu.sentence_score(answer, [reference])
    return Scores(
        exact_match=float(normal(answer) == normal(reference)),
        token_f1=token_f1(answer, reference),
        rouge_l=float(_rouge().score(reference, answer)["rougeL"].fmeasure),
        chrf=float(chrf.sentence_score(answer, [reference]).score),
        bleu=(*found.counts, *found.totals, found.sys_len, found.ref_len),
        json_valid=None if parsed(reference) is None else float(parsed(answer) is not None),
    )


def normal(text: str) -> str:
    """The text as it is compared: a JSON object or list in one form, other text without case or spare white space."""
    found = parsed(text)
    if found is not None:
        return json.dumps(found, sort_keys=True, ensure_ascii=False)
    return _SPACE.sub(" ", text).strip().casefold()


def parsed(text: str) -> Any:
    """The JSON object or list that the text is; None for anything else, a number or a bare word, too."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def token_f1(answer: str, reference: str) -> float:
    """The harmonic mean of precision and recall of words and punctuation, as SQuAD counts them."""
    said, wanted = Counter(tokens(answer)), Counter(tokens(reference))
    if not said or not wanted:
        return float(said == wanted)
    return 2 * (said & wanted).total() / (said.total() + wanted.total())


def tokens(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def is_refusal(text: str) -> bool:
    """Whether it begins as a refusal does. English only, and a small pattern: good for comparing, not for counting."""
    return _REFUSAL.search(text[:_LOOKED_AT].casefold().replace("\u2019", "'")) is not None


def is_repetitive(text: str) -> bool:
    """Whether at least half of its runs of three words have come before; short answers never are."""
    words = tokens(text)
    grams = [tuple(words[n : n + _GRAM]) for n in range(len(words) - _GRAM + 1)]
    return len(grams) >= _LEAST_GRAMS and 1 - len(set(grams)) / len(grams) >= ENOUGH_REPEATED


class _Words:
    """ROUGE's own tokenizer knows a to z and 0 to 9 only: with it any two Greek answers would score nothing."""

    def tokenize(self, text: str) -> list[str]:
        return [word for word in tokens(text) if word[0].isalnum()]


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # a second to import, with nltk

    return RougeScorer(["rougeL"], tokenizer=_Words())


@cache
def _sacrebleu() -> tuple[Any, Any]:
    from sacrebleu.metrics import BLEU, CHRF

    return CHRF(), BLEU(effective_order=True)
