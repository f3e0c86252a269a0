"""How alike texts are: word 5-grams, datasketch's MinHash of them, and which texts may be alike. It knows no rows.

Signatures are made for thousands of texts at a time. Only the hashes of their bands are kept, in files, one for each
band: 64 bytes a text on disk and 8 in memory while a band is looked through. What shares a band is compared exactly.

5-grams that a tenth of the texts have are taken for a template's ("Classify the following message: …") and not
compared: otherwise a long instruction would make everything under it alike.
"""

from __future__ import annotations

import re
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint64]]
Grams = np.ndarray[Any, np.dtype[np.uint32]]

GRAM = 5
PERMUTATIONS = 64
_BANDS, _WIDTH = 8, 8
"""Texts with a Jaccard similarity of 0.9 share a band with a probability of 0.99, at 0.8 of 0.77, at 0.5 of 0.03."""
_AT_ONCE, _WORDS_AT_ONCE = 4096, 400_000
_SAMPLE = 1024
_TEMPLATE = 0.1
_FEWEST = 50
_ODD = np.uint64(0x9E3779B97F4A7C15)
_WORD = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
"""Scripts without spaces between words: each sign counts as one."""
_SIGNS = {code: " " for code in range(128) if not (chr(code).isalnum() or chr(code) == "_")}


class _Hashes(dict[str, int]):
    """A word's hash, the same in every process; forgets them when there are too many."""

    def __missing__(self, word: str) -> int:
        if len(self) > 500_000:
            self.clear()
        data = word.encode("utf-8", "surrogatepass")
        found = self[word] = zlib.crc32(data) << 32 | zlib.crc32(data[::-1], 1)
        return found


class Shingler:
    """Texts → hashes of their 5-grams; learns which are a template's from `learn`."""

    def __init__(self) -> None:
        self._hashes = _Hashes()
        self.template: Grams = np.empty(0, np.uint32)

    def words(self, text: str) -> list[int]:
        """The hashes of a text's words, in lower case and without punctuation; at least five of them."""
        hashes = self._hashes
        lowered = text.lower()
        words = lowered.translate(_SIGNS).split() if lowered.isascii() else _WORD.findall(lowered)
        found = [hashes[word] for word in words]
        return found + [0] * (GRAM - len(found))

    def grams(self, texts: Sequence[list[int]]) -> tuple[Grams, np.ndarray[Any, np.dtype[np.int64]]]:
        """All 5-grams of texts given as `words`, one text after another, and where each text begins."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        ends = np.cumsum(lengths)
        flat: Words = np.fromiter(chain.from_iterable(texts), np.uint64, int(ends[-1]))
        mixed = np.zeros(len(flat) - GRAM + 1, np.uint64)
        for place in range(GRAM):
            mixed = mixed * _ODD + flat[place : len(flat) - GRAM + 1 + place]
        inside = np.ones(len(mixed), bool)
        for place in range(1, GRAM):  # a gram that would begin there goes on into the next text
            inside[ends[:-1] - place] = False
        counts = lengths - GRAM + 1
        return (mixed[inside] >> np.uint64(32)).astype(np.uint32), np.cumsum(counts) - counts

    def learn(self, grams: Grams, starts: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Take what many of these texts have for a template's."""
        texts = len(starts)
        owner = np.repeat(np.arange(texts, dtype=np.uint64), np.diff(starts, append=len(grams)))
        each = np.unique(grams.astype(np.uint64) << np.uint64(32) | owner) >> np.uint64(32)
        found, counts = np.unique(each, return_counts=True)
        often = found[counts >= max(_FEWEST, _TEMPLATE * texts)].astype(np.uint32)
        self.template = np.union1d(self.template, often)

    def own(self, text: str) -> set[int]:
        """The 5-grams of one text that are no template's; all of them, if it has no others."""
        grams, _ = self.grams([self.words(text)])
        own = grams[~np.isin(grams, self.template)] if len(self.template) else grams
        return set((own if len(own) else grams).tolist())


def jaccard(one: set[int], other: set[int]) -> float:
    """What two texts share, of what they have; 0 to 1."""
    return len(one & other) / len(one | other)


class Signatures:
    """The bands of many texts' signatures, in files in `directory`."""

    def __init__(self, directory: Path) -> None:
        from datasketch import MinHash  # most of a second to import

        self.shingler = Shingler()
        self._permutations = MinHash(num_perm=PERMUTATIONS, scheme="affine32").permutations
        # Without names: they are gone with the process, however it ends.
        self._files = [tempfile.TemporaryFile(dir=directory, buffering=0) for _ in range(_BANDS)]  # noqa: SIM115  # see close
        self._waiting: list[list[int]] = []
        self._words = 0

    def add(self, text: str) -> None:
        self._waiting.append(self.shingler.words(text))
        self._words += len(self._waiting[-1])
        if len(self._waiting) == _AT_ONCE or self._words > _WORDS_AT_ONCE:
            self._flush()

    def bands(self) -> Iterator[Words]:
        """For each band the hashes of all texts. Texts that share one may be alike."""
        self._flush()
        for file in self._files:
            file.seek(0)
            yield np.fromfile(file, np.uint64)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _flush(self) -> None:
        if not self._waiting:
            return
        self.shingler.learn(*self.shingler.grams(self._waiting[:_SAMPLE]))
        grams, starts = self.shingler.grams(self._waiting)
        values = signed(*_without(self.shingler.template, grams, starts), self._permutations)
        for number, file in enumerate(self._files):
            band: Words = np.zeros(len(values), np.uint64)
            for column in range(number * _WIDTH, (number + 1) * _WIDTH):
                band = (band ^ values[:, column]) * _ODD
                band ^= band >> np.uint64(29)
            file.write(band.tobytes())
        self._waiting, self._words = [], 0


def signed(grams: Grams, starts: np.ndarray[Any, np.dtype[np.int64]], permutations: Any) -> Grams:
    """The MinHash values of each text, (texts, permutations): those of datasketch's MinHash(scheme="affine32")."""
    mixed = grams ^ (grams >> np.uint32(16))
    mixed = mixed * np.uint32(0x85EBCA6B)
    mixed = mixed ^ (mixed >> np.uint32(13))
    mixed = mixed * np.uint32(0xC2B2AE35)
    mixed = mixed ^ (mixed >> np.uint32(16))
    factors, terms = permutations
    values = np.empty((len(starts), len(factors)), np.uint32)
    for number, (factor, term) in enumerate(zip(factors, terms, strict=True)):
        values[:, number] = np.minimum.reduceat(mixed * factor + term, starts)
    return values


def _without(template: Grams, grams: Grams, starts: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Grams, Any]:
    """The grams that are no template's; a text that has no others keeps its own."""
    if not len(template):
        return grams, starts
    kept = ~np.isin(grams, template)
    counts = np.add.reduceat(kept.astype(np.int64), starts)
    bare = np.repeat(counts == 0, np.diff(starts, append=len(grams)))
    counts = np.where(counts == 0, np.diff(starts, append=len(grams)), counts)
    return grams[kept | bare], np.cumsum(counts) - counts
