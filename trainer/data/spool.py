"""Examples on disk while they are looked through: written once, read in order or by number. It judges nothing."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path

from adapters.examples import Example


class Spool:
    """A file of rows in `directory`, without a name: it is gone with the process. Eight bytes of memory for each."""

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory, buffering=1024 * 1024)  # noqa: SIM115  # see close
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, example: Example) -> None:
        line = example.to_json().encode() + b"\n"
        self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))

    def done(self) -> None:
        """Call between writing and reading."""
        self._file.flush()

    def at(self, number: int) -> Example:
        """The row of that number, from 0."""
        begin, end = self._ends[number], self._ends[number + 1]
        return Example.model_validate_json(os.pread(self._file.fileno(), end - begin, begin))

    def lines(self) -> Iterator[bytes]:
        """All rows in order, each as its line."""
        self._file.seek(0)
        return iter(self._file)

    def close(self) -> None:
        self._file.close()
