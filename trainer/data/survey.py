"""The one pass that every use of data makes: read, mask, take a side, and then judge what is one too many.

`trainer run`, `inspect` and `prepare` all go through here, so that what is inspected is what is trained on. Rows lie in
a file meanwhile; the memory for each is about 100 bytes, whatever its length. Every example of every row is either on a
side or counted under a reason: `Survey.outcome` adds up to `Survey.sources`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adapters.examples import Example
from trainer.data import personal, sides
from trainer.data.files import rows_of
from trainer.data.profile import Profile
from trainer.data.rows import SILENT, TOOLS, Parsed, Reading, examples_of
from trainer.data.sift import KEPT, VERDICTS, Sift
from trainer.data.spool import Spool
from trainer.data.turns import TOOL_CALL, BadRow
from trainer.errors import InvalidData
from trainer.progress import Watch
from trainer.settings.data import DataSettings

BAD = "judged bad"
UNREADABLE = "that cannot be read"
LIVE = "from the gateway"
_NOT_FOR = {
    ("sft", "preference"): "of pairs, which sft does not learn from",
    ("dpo", "demonstration"): "without a worse answer, which dpo needs",
    ("dpo", "seed"): "without a worse answer, which dpo needs",
    ("dpo", "label"): "judged alone, which dpo does not learn from",
    ("kto", "demonstration"): "without a label, which kto needs",
    ("kto", "seed"): "without a label, which kto needs",
    ("kto", "preference"): "of pairs, which kto does not learn from",
}
LEFT_OUT = frozenset({BAD, UNREADABLE, TOOLS, SILENT, TOOL_CALL, *VERDICTS[1:], *_NOT_FOR.values()})

_REMEDY = "correct this line, or remove it"


@dataclass
class Survey:
    """What was found. `sides` and `verdicts` have an entry for each row of the spool."""

    spool: Spool
    profile: Profile
    sides: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0, np.uint8))
    verdicts: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0, np.uint8))
    sources: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    contradictions: int = 0
    users: int = 0

    def outcome(self) -> dict[str, int]:
        """How many examples are on each side, and how many were left out, by reason."""
        kept = np.bincount(self.sides[self.verdicts == KEPT], minlength=3).tolist()
        return {**dict(zip(sides.NAMES, kept, strict=True)), **self.left}

    def split(self) -> Iterator[tuple[int, bytes]]:
        """The rows that stay, in order: side and line."""
        for side, verdict, line in zip(self.sides.tolist(), self.verdicts.tolist(), self.spool.lines(), strict=True):
            if verdict == KEPT:
                yield side, line


class Surveyor:
    """One survey under way. `recipe` leaves out what it cannot learn from; None keeps every kind.

    `tolerant`: a row that cannot be read is counted and told, else it raises `InvalidData`.
    """

    def __init__(
        self,
        settings: DataSettings,
        directory: Path,
        *,
        recipe: str | None = None,
        tolerant: bool = False,
        profile: Profile | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._settings, self._recipe, self._tolerant = settings, recipe, tolerant
        self._watch = watch or Watch()
        self._finder = _finder(settings)
        self._how = Reading(settings.system, settings.columns, settings.good_from)
        self._sift = Sift(directory, settings.near_duplicates)
        self._on = bytearray()
        self.found = Survey(Spool(directory), profile or Profile())

    def survey(self, live: Iterable[Example] = ()) -> Survey:
        """Read everything, and judge. Raises `InvalidData`."""
        try:
            self._read(live)
            self._judge()
        finally:
            self._watch.end()
        return self.found

    def _read(self, live: Iterable[Example]) -> None:
        settings, found = self._settings, self.found
        files: list[tuple[Path, int | None]] = [(path, None) for path in settings.train]
        files += [(path, sides.HELD_OUT) for path in settings.held_out] + [(path, sides.TEST) for path in settings.test]
        self._watch.begin("reading", sum(path.stat().st_size for path, _ in files if path.is_file()))
        for path, side in files:
            self._file(path, side)
        for number, example in enumerate(live, 1):
            found.sources[LIVE] += 1
            self._row(Parsed("the gateway's", [example]), None, f"the gateway's row {number}")
        found.profile.done()
        found.spool.done()

    def _judge(self) -> None:
        found = self.found
        self._watch.begin("comparing", 100)
        found.sides = np.frombuffer(self._on, np.uint8)
        found.verdicts = self._sift.judge(found.spool.at, lambda share: self._watch.at(int(100 * share)))
        found.contradictions, found.users = self._sift.contradictions(), self._sift.users()
        counted = np.bincount(found.verdicts, minlength=len(VERDICTS)).tolist()
        found.left.update(
            {name: count for name, count in zip(VERDICTS, counted, strict=True) if count and name != "kept"}
        )

    def _file(self, path: Path, side: int | None) -> None:
        source = f"from {path.name}"
        for number, raw in rows_of(path, self._watch.at):
            try:
                if isinstance(raw, BadRow):
                    raise raw
                parsed = examples_of(raw, self._how)
            except BadRow as error:
                if not self._tolerant:
                    raise InvalidData(f"{path}:{number}: {error}", _REMEDY) from None
                self.found.sources[source] += 1
                self.found.left[UNREADABLE] += 1
                self.found.profile.failed(f"{path}:{number}: {error}")
                continue
            self.found.sources[source] += len(parsed.examples) + len(parsed.left)
            self._row(parsed, side, f"{path}:{number}")
        self._watch.past(path)

    def _row(self, parsed: Parsed, side: int | None, where: str) -> None:
        found = self.found
        found.profile.parsed(parsed)
        found.left.update(parsed.left)
        if not parsed.examples:
            return
        on = self._side(parsed.examples) if side is None else side
        for example in parsed.examples:
            # A file of test rows is for the gate, which answers them all: kto and dpo are judged by references, too.
            reason = None if side == sides.TEST else unfit(example, self._recipe)
            if reason is not None:
                found.left[reason] += 1
                continue
            finds: list[personal.Found] = []
            if self._finder is not None:
                example, finds = personal.cleaned(example, self._finder, mask=self._settings.personal == "mask")
            found.profile.kept(example, finds, where)
            found.spool.add(example)
            self._on.append(on)
            self._sift.add(example, on, named=side is not None)

    def _side(self, examples: list[Example]) -> int:
        settings = self._settings
        held_out = 0.0 if settings.held_out else settings.held_out_share
        return sides.side_of(examples, held_out, 0.0 if settings.test else settings.test_share)


def unfit(example: Example, recipe: str | None) -> str | None:
    """Why a recipe cannot learn from the example; None if it can. Without a recipe all can be learnt from."""
    if recipe == "sft" and example.label is False:
        return BAD
    return _NOT_FOR.get((recipe, example.kind)) if recipe is not None else None


def _finder(settings: DataSettings) -> personal.Finder | None:
    if settings.personal == "off":
        return None
    if settings.personal_by == "patterns":
        return personal.Patterns()
    from trainer.data.presidio import Presidio

    return Presidio()


def strictly(path: Path, how: Reading) -> Iterator[Example]:
    """The examples of one file, in order, as they are. Raises `InvalidData` with file and line."""
    for number, raw in rows_of(path):
        try:
            if isinstance(raw, BadRow):
                raise raw
            yield from examples_of(raw, how).examples
        except BadRow as error:
            raise InvalidData(f"{path}:{number}: {error}", _REMEDY) from None
