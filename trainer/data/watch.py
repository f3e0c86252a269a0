"""What a person sees while rows are looked through: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_EVERY_SECONDS = 5.0


class Watch:
    """Stages, each of a known size. Without a stream it says nothing."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._total = self._past = 0
        self._stage = ""
        self._told = time.monotonic()
        self._bar: Progress | None = None
        if stream is not None and stream.isatty():
            columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(TextColumn("{task.description}"), *columns, console=Console(file=stream))
            self._bar.start()

    def begin(self, stage: str, total: int) -> None:
        """A stage of `total` (bytes, or rows) begins; the one before it is over."""
        if self._bar is not None:
            for task in self._bar.tasks:
                self._bar.update(task.id, completed=task.total)
            self._bar.add_task(stage, total=total)
        self._stage, self._total, self._past = stage, total, 0

    def at(self, done: int) -> None:
        """So much of the present file, or stage, is done."""
        done += self._past
        if self._bar is not None:
            self._bar.update(self._bar.tasks[-1].id, completed=done)
        elif self._stream is not None and time.monotonic() - self._told >= _EVERY_SECONDS:
            self._told = time.monotonic()
            share = min(done / self._total, 1.0) if self._total else 1.0
            print(f"{self._stage}: {share:.0%}", file=self._stream, flush=True)  # progress is for people

    def past(self, path: Path) -> None:
        """A file is done; `at` counts on from its end."""
        self._past += path.stat().st_size
        self.at(0)

    def end(self) -> None:
        """All is done, or failed; the terminal is as it was."""
        if self._bar is not None:
            self._bar.stop()
