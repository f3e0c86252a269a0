"""One line that says how far a run is: rewritten on a terminal, printed now and then into a file."""

from __future__ import annotations

import sys
import time

EVERY_SECONDS = 5.0


class Progress:
    """Call it with what there is to say."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._live = sys.stderr.isatty()
        self._printed = 0.0

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        if self._live:
            sys.stderr.write(f"\r\x1b[K{self._prefix} · {what}")
            sys.stderr.flush()
        elif now - self._printed >= EVERY_SECONDS:
            print(f"{self._prefix} · {what}", file=sys.stderr, flush=True)
            self._printed = now

    def end(self) -> None:
        """Leave the line."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
