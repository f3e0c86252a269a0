"""What the person in front of the demo sees: each step, what it waits for, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console = Console(highlight=False, soft_wrap=True, width=150)  # a file has no width; tables need one
EVERY_SECONDS = 10.0
"""Without a terminal (a log file, CI) a line is printed when the wait changes, and at least so often."""


class Step:
    """One step under way. `say` tells what it waits for right now."""

    def __init__(self, status: Status | None) -> None:
        self.status = status
        self.began = self.printed = time.monotonic()
        self.last = ""
        self.note = ""

    def say(self, what: str) -> None:
        if self.status is not None:
            self.status.update(f"[dim]{time.monotonic() - self.began:4.0f} s[/dim]  {what}")
        elif what.split(" · ")[0] != self.last.split(" · ")[0] or time.monotonic() - self.printed > EVERY_SECONDS:
            console.print(f"        … {time.monotonic() - self.began:4.0f} s  {what}", markup=False)
            self.printed = time.monotonic()
        self.last = what


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Announce a step, show what it waits for, and print how long it took; set `note` for the figure worth keeping."""
    if console.is_terminal:
        console.print(f"[bold]{title}[/bold]")
        with console.status("") as status:
            one = Step(status)
            yield one
    else:
        console.print(title)
        one = Step(None)
        yield one
    console.print(
        f"   done in {time.monotonic() - one.began:.1f} s{'  ·  ' + one.note if one.note else ''}", markup=False
    )
