"""What `_lane.c` has. See `lane.py`."""

from collections.abc import Callable
from typing import final

@final
class Ride:
    """One stream on the lane. `open`: usual chunks may pass; whoever is handed something back opens it again.

    `pieces` passed, the `last` of them at `since` (the time given to `look`); `keep`: what is left of what it may keep.
    """

    open: bool
    keep: int
    pieces: int
    @property
    def rider(self) -> object: ...
    @property
    def last(self) -> bytes: ...
    @property
    def since(self) -> float: ...
    def leave(self) -> None:
        """Off the lane, for good. May be called twice."""

@final
class Lane:
    """Streams whose usual chunks pass by. Raises OSError where the system has no descriptors left."""

    def fileno(self) -> int:
        """What becomes readable when there is something to look at."""

    def enter(
        self,
        rider: object,
        source: int,
        target: int,
        waiting: Callable[[], int],
        tail: bytes,
        kept: list[bytes],
        keep: int,
    ) -> Ride:
        """A ride for what comes from `source`, to `target`: both are duplicated."""

    def look(self, now: float) -> list[tuple[Ride, bytes, bool]]:
        """Pass on what is there. Of what was not usual: whose it is, and the bytes that came (b"": no more will come);
        True: these are the rest of a chunk that `target` did not take."""
