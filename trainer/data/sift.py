"""Which rows stay: exact and near duplicates, and rows that say what the held-out side holds. It reads no files.

The split comes first; a held-out row never leaves for a trained one. Rows whose prompt somebody put into a held-out
file leave the trained ones; where the split is by users, only rows that give the same answer, too, do: two users may
ask the same question. Where two rows are one too many, the test side
stays before the held-out side before the trained one, and on one side the first row stays.

About 60 bytes of memory a row, and the bands of its signature on disk.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adapters.examples import Example
from trainer.data.alike import Signatures, jaccard
from trainer.data.sides import TRAIN, prompt_of

TWICE = "exact duplicates"
NEAR = "near duplicates"
LEAKED = "also held out"
LIKE = "nearly the same as held-out rows"
USER = "of users who are held out by name"
VERDICTS = ("kept", TWICE, LEAKED, USER, NEAR, LIKE)
KEPT, _TWICE, _LEAKED, _USER, _NEAR, _LIKE = range(6)

Column = np.ndarray[Any, Any]
_COMPARED = 8
"""Rows of one band that a row is compared with: those that are alike share other bands, too."""
_SYSTEM = ("system", "developer")


class Sift:
    """Add every row, then judge once. `near`: rows at least this alike count as one; None: exact ones only."""

    def __init__(self, directory: Path, near: float | None) -> None:
        self._near = near
        self._signatures = Signatures(directory) if near is not None else None
        self._sides, self._named = array("B"), array("B")
        self._rows, self._prompts, self._units = array("Q"), array("Q"), array("Q")
        self._says = array("b")

    def add(self, example: Example, side: int, *, named: bool) -> None:
        """`named`: the row is on its side because its file is, and not by the split."""
        prompt = prompt_of(example)
        self._named.append(named)
        self._sides.append(side)
        self._prompts.frombytes(_digest(prompt, 8))
        said = f"{example.completion}\0{example.rejected}"
        self._rows.frombytes(_digest(f"{prompt}\0{said}", 16))
        self._units.frombytes(_digest(example.unit, 8) if example.unit is not None else bytes(8))
        self._says.append(-1 if example.label is None else example.label)
        if self._signatures is not None:
            self._signatures.add(asked(example))

    def judge(self, row: Callable[[int], Example], advance: Callable[[float], None] = lambda share: None) -> Column:
        """For each row its number in VERDICTS. `row` gives a row again; `advance` is told what share is done."""
        sides = np.frombuffer(self._sides, np.uint8)
        verdicts = np.zeros(len(sides), np.uint8)
        if not len(sides):
            return verdicts
        self._exactly(sides, verdicts)
        if self._signatures is not None and self._near is not None:
            compare = _Comparison(self._signatures, row, self._near)
            for number, band in enumerate(self._signatures.bands()):
                compare.look_through(band, sides, np.frombuffer(self._named, np.uint8), verdicts)
                advance((number + 1) / 8)
            self._signatures.close()
        return verdicts

    def contradictions(self) -> int:
        """Answers to one prompt that are said to be good, and said to be bad."""
        says, rows = np.frombuffer(self._says, np.int8), np.frombuffer(self._rows, np.uint64)[::2]
        return len(np.intersect1d(rows[says == 1], rows[says == 0]))

    def users(self) -> int:
        """How many users the rows name."""
        units = np.unique(np.frombuffer(self._units, np.uint64))
        return int(np.count_nonzero(units))

    def _exactly(self, sides: Column, verdicts: Column) -> None:
        prompts, units = np.frombuffer(self._prompts, np.uint64), np.frombuffer(self._units, np.uint64)
        rows, named = np.frombuffer(self._rows, np.uint64), np.frombuffer(self._named, np.uint8) != 0
        bad = np.frombuffer(self._says, np.int8) == 0
        first, second = rows[::2], rows[1::2] ^ bad  # the same answer said to be bad is another row
        for side in range(TRAIN, int(sides.max())):
            mine, above = sides == side, sides > side
            users = mine & (units != 0) & np.isin(units, units[above])
            same = np.isin(prompts, prompts[above & named]) | (
                np.isin(first, first[above]) & np.isin(second, second[above])
            )
            verdicts[mine & same] = _LEAKED
            verdicts[users] = _USER
        left = np.flatnonzero(verdicts == KEPT)
        order = left[np.lexsort((left, second[left], first[left], sides[left]))]
        one, other = order[:-1], order[1:]
        twice = (first[one] == first[other]) & (second[one] == second[other]) & (sides[one] == sides[other])
        verdicts[other[twice]] = _TWICE


class _Comparison:
    """Looks through bands of signatures for rows that are alike, and compares them word by word."""

    def __init__(self, signatures: Signatures, row: Callable[[int], Example], near: float) -> None:
        self._shingler, self._row, self._near = signatures.shingler, row, near

    def look_through(self, band: Column, sides: Column, named: Column, verdicts: Column) -> None:
        alive = np.flatnonzero(verdicts == KEPT)
        hashes = band[alive]
        order = np.lexsort((alive, -sides[alive].astype(np.int8), hashes))
        alive, hashes = alive[order], hashes[order]
        begins = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1])))
        lengths = np.diff(begins, append=len(hashes))
        for begin, length in zip(begins[lengths > 1].tolist(), lengths[lengths > 1].tolist(), strict=True):
            self._group(alive[begin : begin + length].tolist(), sides, named, verdicts)

    def _group(self, rows: list[int], sides: Column, named: Column, verdicts: Column) -> None:
        kept: list[tuple[int, set[int], Example]] = []
        for number in rows:
            example = self._row(number)
            grams = self._shingler.own(asked(example))
            for other, theirs, their_row in kept:
                if jaccard(grams, theirs) < self._near:
                    continue
                here = sides[number] == sides[other]
                if (not here and named[other]) or self._says_the_same(example, their_row):
                    verdicts[number] = _NEAR if here else _LIKE
                    break
            else:
                if len(kept) < _COMPARED:
                    kept.append((number, grams, example))

    def _says_the_same(self, one: Example, other: Example) -> bool:
        if one.label != other.label or (one.rejected is None) != (other.rejected is None):
            return False
        return all(
            mine == theirs or jaccard(self._shingler.own(mine), self._shingler.own(theirs)) >= self._near
            for mine, theirs in ((one.completion, other.completion), (one.rejected or "", other.rejected or ""))
        )


def asked(example: Example) -> str:
    """What is compared of a prompt: the texts of its turns, without the system prompt that all rows may share."""
    texts: list[str] = []
    for message in example.messages:
        content = message.get("content")
        if message["role"] in _SYSTEM:
            continue
        if isinstance(content, str):
            texts.append(content)
        elif content is not None:
            texts += [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts)


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=size).digest()
