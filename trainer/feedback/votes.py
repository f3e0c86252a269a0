"""Thumbs and ratings as one verdict for each answer: good, bad, or nothing that could be learnt from.

One voter (a user, by one source) has one vote on the same answer to the same prompt, alike but for case and spaces; the
majority holds. A tie, and a voter whose own metrics disagree, make no label.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from adapters.judgements import Judged
from trainer.feedback.heard import Heard, prompt_key, whole

MIDDLE = "ratings from the middle third"
NOT_WHOLE = "thumbs or ratings of an answer that is not kept, or was cut"
OVERRULED = "thumbs up for an answer that was corrected: the correction holds"
TORN = "thumbs or ratings of a voter whose metrics disagree about the answer"
TIED = "thumbs or ratings on which voters disagree evenly"
OUTVOTED = "thumbs or ratings against the majority"
DISTRUSTED = "thumbs or ratings of users whom most others contradict"
USERS_DISTRUSTED = "users whom most others contradict"

_COMPARED = 5
"""Votes that others voted on too, before a user can be distrusted."""


@dataclass(frozen=True, slots=True)
class Verdict:
    about: Judged
    good: bool
    by: list[Heard]


@dataclass(frozen=True, slots=True)
class _Vote:
    heard: Heard
    good: bool

    @property
    def answer(self) -> tuple[str, str]:
        return (prompt_key(self.heard.about.messages), (self.heard.about.answer or "").strip())


def judge(
    heard: Sequence[Heard],
    *,
    corrected: set[str],
    scales: Mapping[str, tuple[float, float]],
    distrust: float | None,
    counts: Counter[str],
) -> list[Verdict]:
    """The answers that have a verdict, the oldest first. `corrected`: ids of the answers that somebody rewrote."""
    votes = []
    for vote in _votes(heard, scales, counts):
        if whole(vote.heard.about) is None:
            counts[NOT_WHOLE] += 1
        elif vote.good and vote.heard.about.inference_id in corrected:
            counts[OVERRULED] += 1
        else:
            votes.append(vote)
    ballots = _ballots(votes)
    if distrust is not None:
        out = _contradicted(ballots, distrust)
        kept = [vote for vote in votes if vote.heard.about.unit not in out]
        counts[USERS_DISTRUSTED] += len(out)
        counts[DISTRUSTED] += len(votes) - len(kept)
        votes, ballots = kept, _ballots(kept)
    return _verdicts(votes, ballots, counts)


def ends(values: Iterable[float]) -> tuple[float, float]:
    """The scale that ratings show: their 5th and 95th percentile, so that one wild value does not stretch it."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[round(last * 0.05)], ordered[round(last * 0.95)]


def _votes(heard: Iterable[Heard], scales: Mapping[str, tuple[float, float]], counts: Counter[str]) -> list[_Vote]:
    """Thumbs as they are, ratings by thirds of their metric's scale; both turned where smaller is better."""
    ratings: dict[str, list[Heard]] = defaultdict(list)
    votes = []
    for each in heard:
        if each.said.kind == "boolean":
            votes.append(_Vote(each, bool(each.said.value) is (each.said.optimize == "max")))
        elif each.said.kind == "float":
            ratings[each.said.metric].append(each)
    for metric, given in ratings.items():
        low, high = scales.get(metric) or ends(float(each.said.value) for each in given)
        third = (high - low) / 3
        for each in given:
            value = float(each.said.value)
            if not low < high or low + third < value < high - third:
                counts[MIDDLE] += 1
            else:
                votes.append(_Vote(each, (value >= high - third) is (each.said.optimize == "max")))
    return sorted(votes, key=lambda vote: vote.heard.moment)


_Ballots = dict[tuple[str, str], dict[tuple[str, str], bool | None]]


def _ballots(votes: Iterable[_Vote]) -> _Ballots:
    """Of each answer what each voter thinks of it; None where their metrics disagree. Their latest word counts."""
    said: dict[tuple[str, str], dict[tuple[str, str], dict[str, bool]]] = defaultdict(lambda: defaultdict(dict))
    for vote in votes:
        said[vote.answer][vote.heard.voter][vote.heard.said.metric] = vote.good
    return {
        answer: {
            voter: next(iter(metrics.values())) if len(set(metrics.values())) == 1 else None
            for voter, metrics in voters.items()
        }
        for answer, voters in said.items()
    }


def _majority(opinions: Iterable[bool | None]) -> bool | None:
    tally = Counter(opinions)
    return None if tally[True] == tally[False] else tally[True] > tally[False]


def _contradicted(ballots: _Ballots, share: float) -> set[str]:
    """Units against the majority of at least two others in more than `share` of at least five comparisons."""
    compared: Counter[str] = Counter()
    against: Counter[str] = Counter()
    for voters in ballots.values():
        if len(voters) < 3:
            continue
        tally = Counter(voters.values())
        own = Counter((unit, opinion) for (unit, _), opinion in voters.items())
        for (unit, _), opinion in voters.items():
            good, bad = tally[True] - own[unit, True], tally[False] - own[unit, False]
            if opinion is not None and good + bad >= 2 and good != bad:
                compared[unit] += 1
                against[unit] += opinion is not (good > bad)
    return {unit for unit, many in compared.items() if many >= _COMPARED and against[unit] > share * many}


def _verdicts(votes: Sequence[_Vote], ballots: _Ballots, counts: Counter[str]) -> list[Verdict]:
    of_answer: dict[str, tuple[bool, list[Heard]]] = {}
    about: dict[str, Judged] = {}
    decided = {answer: _majority(voters.values()) for answer, voters in ballots.items()}
    for vote in votes:
        good = decided[vote.answer]
        if ballots[vote.answer][vote.heard.voter] is None:
            counts[TORN] += 1
        elif good is None:
            counts[TIED] += 1
        elif vote.good is not good:
            counts[OUTVOTED] += 1
        else:
            judged = about.setdefault(vote.heard.about.inference_id, vote.heard.about)
            of_answer.setdefault(judged.inference_id, (good, []))[1].append(vote.heard)
    ordered = sorted(about.values(), key=lambda judged: (judged.created_at, judged.inference_id))
    return [Verdict(judged, *of_answer[judged.inference_id]) for judged in ordered]
