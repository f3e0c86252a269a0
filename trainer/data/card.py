"""The data card: what a dataset is made of, as JSON and as Markdown with pictures. It holds counts, never a text.

    card.json    every figure                     lengths.svg   lengths against the context
    card.md      the same, to read                split.svg     what came in, and where it went
                                                  answers.svg   label balance, where answers are labels

What is found of personal data is told by kind; of the rows themselves only short labels that many rows share are shown.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data import pictures
from trainer.data.survey import Survey
from trainer.settings.data import DataSettings

_QUANTILES = (0.5, 0.9, 0.99, 1.0)
_COLUMNS = _BARS = 20
_LABELS = 40
_RARE = 2
"""An answer that so few rows have is not shown: it may be somebody's."""


def write(directory: Path, survey: Survey, settings: DataSettings) -> dict[str, Any]:
    """Write the card and its pictures; each file gets its name when it is whole. Returns what card.json holds."""
    told = summary(survey, settings)
    directory.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.drawn(told).items():
        _replace(directory / name, picture)
    _replace(directory / "card.json", json.dumps(told, indent=2, ensure_ascii=False).encode() + b"\n")
    _replace(directory / "card.md", markdown(told).encode())
    return told


def summary(survey: Survey, settings: DataSettings) -> dict[str, Any]:
    """Every figure of the card. `rows.from` adds up to what is on the three sides and what was left out."""
    profile, outcome = survey.profile, survey.outcome()
    sides = {name: outcome.pop(name) for name in ("train", "held_out", "test")}
    return {
        "rows": {"from": dict(survey.sources), **sides, "left_out": outcome},
        "kinds": dict(profile.kinds.most_common()),
        "shapes": dict(profile.shapes.most_common()),
        "users": survey.users,
        "labels": {
            "judged": dict(profile.judged),
            "contradictory": survey.contradictions,
            "answers": _labels(profile.answers),
        },
        "lengths": _lengths(survey, settings.max_tokens),
        "personal": {
            "found": dict(profile.personal.most_common()),
            "rows": profile.personal_rows,
            "done": {"mask": "masked", "count": "left as it is", "off": "not looked for"}[settings.personal],
            "by": settings.personal_by,
        },
        "answers_before_the_last_of_a_chat_not_learnt": profile.earlier,
        "answers_with_white_space_around": profile.spaced,
        "columns_not_used": dict(profile.unused.most_common(_COLUMNS)),
        "errors": {"rows": profile.bad, "first": profile.errors},
        "settings": settings.model_dump(mode="json", exclude={"gateway"}),
    }


def markdown(told: dict[str, Any]) -> str:
    """The card to read."""
    rows, lengths, labels = told["rows"], told["lengths"], told["labels"]
    came = sum(rows["from"].values())
    lines = ["# Data card", "", "## Where the rows went", ""]
    lines += _table({**rows["from"], "**all**": came}, "came in", "rows")
    lines += _table({k: rows[k] for k in ("train", "held_out", "test")} | rows["left_out"], "went to", "rows")
    lines += ["![where the rows went](split.svg)", ""]
    user = (
        f"{told['users']} users are named; a user's rows are on one side."
        if told["users"]
        else ("No row names a user (`unit`): the split is by prompt, and one person's rows may be on both sides.")
    )
    lines += [user, "", "## What they are", ""]
    lines += _table(told["kinds"], "kind", "rows") + _table(told["shapes"], "shape", "rows read")
    lines += _notes(told)
    lines += ["## Labels", ""]
    if labels["judged"]:
        lines += _table(labels["judged"], "judged", "rows")
        lines += [f"{labels['contradictory']} answers are judged good by one row and bad by another.", ""]
    if labels["answers"]:
        lines += [*_table(labels["answers"], "answer", "rows"), "![label balance](answers.svg)", ""]
    elif not labels["judged"]:
        lines += ["Answers are texts, no labels of a small set.", ""]
    lines += ["## Lengths", "", f"Prompt and answer together, in {lengths['unit']}; the chat template adds some.", ""]
    lines += _table(lengths["quantiles"], "share of rows up to", "length")
    lines += [f"{lengths['over']} rows are longer than the context of {lengths['context']}.", ""]
    lines += ["![lengths](lengths.svg)", "", "## Personal data", ""]
    personal = told["personal"]
    lines += [f"Looked for by {personal['by']}; {personal['done']}. {personal['rows']} rows have some.", ""]
    lines += _table(personal["found"], "kind", "found") if personal["found"] else []
    if told["errors"]["rows"]:
        lines += ["## Rows that cannot be read", "", *(f"- {error}" for error in told["errors"]["first"]), ""]
    return "\n".join(lines)


def _notes(told: dict[str, Any]) -> list[str]:
    """What is easily overlooked."""
    lines: list[str] = []
    if told["columns_not_used"]:
        lines += _table(told["columns_not_used"], "column that is not used", "rows")
    if count := told["answers_before_the_last_of_a_chat_not_learnt"]:
        lines += [f"{count} answers before the last one of their chat are not learnt; weight 1 makes rows of them.", ""]
    if count := told["answers_with_white_space_around"]:
        lines += [f"{count} answers begin or end with white space, and so will the model's.", ""]
    return lines


def _table(counts: dict[str, Any], what: str, unit: str) -> list[str]:
    cells = [f"| {str(key).replace('|', '/')} | {value} |" for key, value in counts.items()]
    return [f"| {what} | {unit} |", "| --- | ---: |", *cells, ""]


def _labels(answers: Counter[str] | None) -> dict[str, int]:
    """The answers as labels, if they are: few, each had by many rows."""
    if not answers or len(answers) * 3 > answers.total():
        return {}
    common = [(label, count) for label, count in answers.most_common(_LABELS) if count > _RARE]
    rest = answers.total() - sum(count for _, count in common)
    return dict(common) | ({f"({len(answers) - len(common)} others)": rest} if rest else {})


def _lengths(survey: Survey, context: int) -> dict[str, Any]:
    lengths, unit = survey.profile.lengths()
    found: dict[str, Any] = {"unit": unit, "context": context, "over": int(np.count_nonzero(lengths > context))}
    found["quantiles"] = found["histogram"] = {}
    if len(lengths):
        values = np.quantile(lengths, _QUANTILES, method="higher").tolist()
        found["quantiles"] = {f"{share:.0%}": int(value) for share, value in zip(_QUANTILES, values, strict=True)}
        step = -(-max(int(np.quantile(lengths, 0.995)), _BARS) // _BARS)
        edges = np.arange(0, step * (_BARS + 1), step)
        counts, _ = np.histogram(np.minimum(lengths, edges[-1]), edges)  # the last bar has all that is longer
        found["histogram"] = dict(zip((f"{edge}" for edge in edges[:-1].tolist()), counts.tolist(), strict=True))
    return found


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.draft")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
