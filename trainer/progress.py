"""What a person sees while rows are read (`Watch`) and a run goes (`Progress`): a bar on a terminal, else lines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

_EVERY_SECONDS = 5.0
"""Between two lines."""


class Progress(Protocol):
    """How a run tells what it does. `step` counts from 1; `tokens` is the total since `begin`."""

    def say(self, text: str) -> None: ...
    def begin(self, steps: int, *, done: int) -> None: ...
    def step(self, step: int, *, loss: float, tokens: int) -> None: ...
    def end(self) -> None: ...


def to(stream: TextIO) -> Progress:
    """Progress fit for `stream`."""
    console = Console(file=stream)
    return TerminalProgress(console) if console.is_terminal else PlainProgress(stream)


class Silent:
    """For processes that take part in what another tells of."""

    def say(self, text: str) -> None:
        pass

    def begin(self, steps: int, *, done: int) -> None:
        pass

    def step(self, step: int, *, loss: float, tokens: int) -> None:
        pass

    def end(self) -> None:
        pass


class PlainProgress:
    """For logs and pipes: a line at the first and the last step and every few seconds between."""

    def __init__(self, stream: TextIO, *, every_seconds: float = _EVERY_SECONDS) -> None:
        self._stream = stream
        self._every = every_seconds
        self._steps = self._done = 0
        self._began = self._told = 0.0

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)  # this is the command line's voice

    def begin(self, steps: int, *, done: int) -> None:
        self._steps, self._done, self._began, self._told = steps, done, time.monotonic(), 0.0

    def step(self, step: int, *, loss: float, tokens: int) -> None:
        now = time.monotonic()
        if step < self._steps and now - self._told < self._every:
            return
        self._told, spent = now, max(now - self._began, 1e-9)
        left = (self._steps - step) * spent / max(step - self._done, 1)
        self.say(f"step {step}/{self._steps} · loss {loss:.4f} · {tokens / spent:.0f} tokens/s · {left:.0f} s left")

    def end(self) -> None:
        pass


class TerminalProgress:
    """A bar with loss, tokens a second and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = _bar(console, MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
        self._task = self._bar.add_task("training", state="", visible=False)
        self._began = 0.0

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def begin(self, steps: int, *, done: int) -> None:
        self._began = time.monotonic()
        self._bar.update(self._task, total=steps, completed=done, visible=True)
        self._bar.start()

    def step(self, step: int, *, loss: float, tokens: int) -> None:
        spent = max(time.monotonic() - self._began, 1e-9)
        self._bar.update(self._task, completed=step, state=f"loss {loss:.4f} · {tokens / spent:.0f} tokens/s")

    def end(self) -> None:
        self._bar.stop()


class Watch:
    """Stages before any training, each of a known size. Without a stream it says nothing."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._total = self._past = 0
        self._stage = ""
        self._told = time.monotonic()
        self._bar: Bar | None = None
        if stream is not None and stream.isatty():
            self._bar = _bar(Console(file=stream), TaskProgressColumn(), TimeElapsedColumn())
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


def _bar(console: Console, *columns: ProgressColumn) -> Bar:
    return Bar(TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn(), console=console)
