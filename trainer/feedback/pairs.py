"""Which of two answers to one prompt is better: by a correction, by a preference, or by one user's thumbs on both.

A feedback makes one pair at most. Pairs are mined from thumbs of one user only, who asked again: two users' answers in
one row would belong to two people, to both sides of the split, and to whichever of them asks to be erased.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from adapters.examples import Example
from trainer.feedback.heard import Heard, prompt_key, row, whole
from trainer.feedback.votes import Verdict

SAME = "corrections that equal the answer: no pair"
CUT = "corrections of an answer that is not kept, or was cut: no pair"
OTHER_PROMPT = "preferences between answers to different prompts"
PARTIAL = "preferences over an answer that is not kept, or was cut"
EQUAL = "preferences between equal answers"
TIED = "preferences on which voters disagree evenly"
OUTVOTED = "preferences against the majority"
FROM_CORRECTIONS, FROM_PREFERENCES = "pairs from corrections", "pairs from preferences"
MINED = "pairs mined from one user's thumbs on two answers"


def corrected(corrections: Sequence[Heard], counts: Counter[str]) -> list[Example]:
    """The correction over the original."""
    found = []
    for each in corrections:
        original, better = whole(each.about), each.correction or ""
        if original is None:
            counts[CUT] += 1
        elif original.strip() == better.strip():
            counts[SAME] += 1
        elif pair := row(each.about, [each], counts, kind="preference", completion=better, rejected=original):
            found.append(pair)
    counts[FROM_CORRECTIONS] = len(found)
    return found


def preferred(heard: Iterable[Heard], counts: Counter[str]) -> list[Example]:
    """Stated preferences. A voter has one vote on the same two answers; the majority holds, a tie makes no pair."""
    clear = [each for each in heard if each.said.kind == "preference" and _comparable(each, counts)]
    votes: dict[tuple[str, frozenset[str]], dict[tuple[str, str], str]] = defaultdict(dict)
    for each in clear:
        votes[_question(each)][each.voter] = _winner(each)
    found = []
    for each in clear:
        (favourite, most), *others = Counter(votes[_question(each)].values()).most_common()
        if others and others[0][1] == most:
            counts[TIED] += 1
        elif _winner(each) != favourite:
            counts[OUTVOTED] += 1
        elif pair := _pair(each, counts):
            found.append(pair)
    counts[FROM_PREFERENCES] = len(found)
    return found


def mined(verdicts: Sequence[Verdict], known: Sequence[Example], counts: Counter[str]) -> list[Example]:
    """A good answer over a bad one that the same user got to the same prompt, each used once, and not in `known`."""
    used = {feedback for pair in known for feedback in pair.feedback_ids}
    compared = {(pair.unit, _prompt(pair.messages), pair.completion, pair.rejected) for pair in known}
    sides: dict[tuple[str, str], tuple[list[Verdict], list[Verdict]]] = defaultdict(lambda: ([], []))
    for verdict in verdicts:
        if not used.intersection(each.said.id for each in verdict.by):
            sides[verdict.about.unit, _prompt(verdict.about.messages)][verdict.good].append(verdict)
    found = []
    for (unit, prompt), (bad, good) in sides.items():
        for better, worse in zip(good, bad, strict=False):
            completion, rejected = better.about.answer or "", worse.about.answer or ""
            if completion.strip() == rejected.strip() or (unit, prompt, completion, rejected) in compared:
                continue
            fields = {"kind": "preference", "completion": completion, "rejected": rejected}
            if pair := row(better.about, [*better.by, *worse.by], counts, **fields):
                found.append(pair)
    counts[MINED] = len(found)
    return found


def _comparable(each: Heard, counts: Counter[str]) -> bool:
    over, answer = each.said.over, whole(each.about)
    if over is None or answer is None or over.answer is None or not over.answer.strip():
        counts[PARTIAL] += 1
    elif not over.same_prompt:
        counts[OTHER_PROMPT] += 1
    elif answer.strip() == over.answer.strip():
        counts[EQUAL] += 1
    else:
        return True
    return False


def _winner(each: Heard) -> str:
    """The text that is better; where the metric is better when smaller, that of the answer that "lost"."""
    return _texts(each)[0].strip()


def _texts(each: Heard) -> tuple[str, str]:
    assert each.said.over is not None
    texts = (each.about.answer or "", each.said.over.answer or "")
    return texts if each.said.optimize == "max" else (texts[1], texts[0])


def _question(each: Heard) -> tuple[str, frozenset[str]]:
    return (prompt_key(each.about.messages), frozenset(text.strip() for text in _texts(each)))


def _pair(each: Heard, counts: Counter[str]) -> Example | None:
    better, worse = _texts(each)
    return row(each.about, [each], counts, kind="preference", completion=better, rejected=worse)


def _prompt(messages: list[dict[str, object]]) -> str:
    return json.dumps(messages, ensure_ascii=False, sort_keys=True, default=str)
