"""What of a stream of feedback counts at all, in one order: each feedback once, the latest word of each, no floods.

It draws no conclusion; it only says what was heard of which answer. The order of arrival does not matter.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from adapters.examples import Example
from adapters.judgements import Judged, Said

COMMENTS = "comments, which make no row"
SUPERSEDED = "said again later: the latest word counts"
FLOOD = "over one user's share of feedbacks on a metric: the latest count"
ODD = "feedback whose value does not fit its kind"
UNUSABLE = "about a prompt or answer that no trainer takes"


@dataclass(frozen=True, slots=True)
class Heard:
    """One feedback, and the answer it is about."""

    said: Said
    about: Judged

    @property
    def correction(self) -> str | None:
        """The ideal answer that somebody wrote, if any."""
        written = self.said.value if self.said.kind == "demonstration" else self.said.correction
        return written if isinstance(written, str) and written.strip() else None

    @property
    def voter(self) -> tuple[str, str]:
        """Whose word it is: a user, by one source."""
        return (self.about.unit, self.said.source or "")

    @property
    def moment(self) -> tuple[Any, ...]:
        return (self.said.created_at, self.said.id, self.about.created_at, self.about.inference_id)


def listen(judged: Iterable[Judged], *, user_rows: int, counts: Counter[str]) -> list[Heard]:
    """The feedback that counts, oldest first. What does not is counted under its reason."""
    everything = sorted((Heard(said, answer) for answer in judged for said in answer.feedback), key=_place)
    by_id = {each.said.id: each for each in everything}  # a conversation's feedback is about its last answer
    counts["feedbacks"] = len(by_id)
    usable = []
    for each in sorted(by_id.values(), key=lambda each: each.moment):
        counts[COMMENTS] += each.said.kind == "comment" or each.said.comment is not None
        if each.said.kind == "comment":
            continue
        if _fits(each.said):
            usable.append(each)
        else:
            counts[ODD] += 1
    usable.sort(key=lambda each: each.said.about == "inference")  # a word on the answer beats one on the conversation
    latest = {_subject(each): each for each in usable}
    counts[SUPERSEDED] += len(usable) - len(latest)
    return _without_floods(sorted(latest.values(), key=lambda each: each.moment), user_rows, counts)


def whole(answer: Judged) -> str | None:
    """The answer, if its content was kept, it was given whole, and it says anything."""
    return answer.answer if answer.complete and answer.answer is not None and answer.answer.strip() else None


def prompt_key(messages: list[dict[str, Any]]) -> str:
    """Equal for prompts that are alike but for case and spaces."""
    return json.dumps([{key: _folded(value) for key, value in one.items()} for one in messages], sort_keys=True)


def row(about: Judged, heard: Iterable[Heard], counts: Counter[str], **fields: Any) -> Example | None:
    """A row with its provenance, or None, counted, where no trainer takes it. It is as old as its latest feedback."""
    said = sorted(heard, key=lambda each: each.moment)
    try:
        example = Example(
            messages=about.messages,
            inference_id=about.inference_id,
            feedback_ids=[each.said.id for each in said],
            alias=about.alias,
            variant=about.variant,
            adapter=about.adapter,
            propensity=about.propensity,
            unit=about.unit,
            created_at=said[-1].said.created_at,
            **fields,
        )
        example.to_json().encode("utf-8")  # half of a surrogate pair passes every other check
    except ValueError:
        counts[UNUSABLE] += 1
        return None
    return example


def _folded(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return " ".join(text.casefold().split())


def _place(each: Heard) -> tuple[Any, ...]:
    return (each.about.created_at, each.about.inference_id, *each.moment)


def _subject(each: Heard) -> tuple[Any, ...]:
    """What a later feedback with the same replaces."""
    over = each.said.over.inference_id if each.said.over is not None else None
    return (each.about.inference_id, each.said.metric, each.voter, over)


def _fits(said: Said) -> bool:
    if said.kind == "boolean":
        return isinstance(said.value, bool)
    if said.kind in ("float", "count"):
        return not isinstance(said.value, bool | str) and math.isfinite(said.value)
    if said.kind == "preference":
        return said.over is not None
    return isinstance(said.value, str) and bool(said.value.strip())


def _without_floods(heard: list[Heard], most: int, counts: Counter[str]) -> list[Heard]:
    of_user: dict[tuple[str, str], list[Heard]] = defaultdict(list)
    for each in heard:
        of_user[each.about.unit, each.said.metric].append(each)
    kept = [each for said in of_user.values() for each in said[-most:]]
    counts[FLOOD] += len(heard) - len(kept)
    return sorted(kept, key=lambda each: each.moment)
