"""Heads of HTTP messages that came before: read once by the parser, known again by their bytes.

A client that keeps its connection says the same in each request but for the length of its body, and so does an engine
in its answers. The same bytes mean the same, so the parser, which calls back for each header, need not see them again:
a sixth of a request's work. It knows nothing of what a head says but that one line.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

LONGEST = 4096
"""Bytes of a head that is kept."""
_LENGTHS = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_NAME = len(_LENGTHS[0])


def cut(data: bytes) -> tuple[bytes, int, int] | None:
    """A message's head less the line of its length, where its body begins, and the length (bytes) it says.

    None where the head has not come whole, or says no length in the usual spelling. To take out one whole line leaves
    the others as they are, so two heads of equal remains differ in nothing but that line, and where it stood.
    """
    end = data.find(b"\r\n\r\n", 0, LONGEST)
    if end < 0:
        return None
    at = data.find(_LENGTHS[0], 0, end)
    if at < 0 and (at := data.find(_LENGTHS[1], 0, end)) < 0:
        return None
    stop = data.find(b"\r\n", at + _NAME, end + 2)
    digits = data[at + _NAME : stop]
    if not digits.isdigit() or len(digits) > 7:
        return None
    return data[:at] + data[stop:end], end + 4, int(digits)


class Heads(Generic[T]):
    """What heads came to, by their remains (see `cut`). Only what the parser took, and found to have one length, may be
    kept here."""

    def __init__(self, *, most: int = 2048) -> None:
        self._most = most
        self._known: dict[bytes, T] = {}
        self.get = self._known.get

    def keep(self, remains: bytes, meaning: T) -> None:
        """Remember one. When there are too many (clients that say something new each time), all are forgotten."""
        if len(self._known) >= self._most:
            self._known.clear()
        self._known[remains] = meaning
