"""A run's rows: read from every source, judged for its recipe, split for good. Imports without torch.

Nothing vanishes silently: each row that is not trained on is counted under its reason. The split is sticky: a unit (or,
without one, a prompt) that is held out once is held out in every later round, whatever else is added.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adapters.examples import Example, read_jsonl
from trainer.data.rows import Reading
from trainer.data.sides import is_held_out
from trainer.data.sift import LEAKED, LIKE, NEAR, TWICE, USER
from trainer.data.survey import BAD, LEFT_OUT, Survey, Surveyor, strictly
from trainer.errors import InvalidData
from trainer.settings.data import DataSettings

MASKED = "with personal data, which is masked"

__all__ = [
    "BAD",
    "LEAKED",
    "LEFT_OUT",
    "LIKE",
    "MASKED",
    "NEAR",
    "TWICE",
    "USER",
    "Dataset",
    "is_held_out",
    "read",
    "read_file",
]


@dataclass(frozen=True, slots=True)
class Dataset:
    """`counts` says how many rows came from where, and how many are on no side, by reason (those in LEFT_OUT).

    What came equals what is left out and what is on a side; the rows of MASKED are among these. trainer.data.card
    writes down what `survey` holds.
    """

    train: list[Example]
    held_out: list[Example]
    test: list[Example] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    survey: Survey | None = None


def read(settings: DataSettings, live: Iterable[Example | str] = (), *, recipe: str = "sft") -> Dataset:
    """All rows that the recipe can learn from, masked, split, each once. Raises `InvalidData` with file and line."""
    with tempfile.TemporaryDirectory(prefix="tuneloop-data-") as directory:
        survey = Surveyor(settings, Path(directory), recipe=recipe).survey(_rows(live))
        train, held_out, test = found = [list[Example]() for _ in range(3)]
        for side, line in survey.split():
            found[side].append(Example.model_validate_json(line))
        survey.spool.close()
    counts = Counter({**survey.sources, **survey.left})
    if settings.personal == "mask":
        counts[MASKED] = survey.profile.personal_rows
    if not train:
        why = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise InvalidData(
            f"there is no row to train on ({why or 'no rows at all'})", f"add rows that {recipe} learns from"
        )
    return Dataset(train, held_out, test, {key: count for key, count in counts.items() if count}, survey)


def _rows(live: Iterable[Example | str]) -> Iterator[Example]:
    """Rows, or their lines as a gateway exports them."""
    for row in live:
        yield from read_jsonl([row], source="the gateway's export") if isinstance(row, str) else [row]


def read_file(path: Path, *, system: str | None = None) -> Iterator[Example]:
    """The rows of a .jsonl, .csv or .parquet file, in order. Raises `InvalidData`."""
    return strictly(path, Reading(system))
