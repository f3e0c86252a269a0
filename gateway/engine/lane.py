"""The lane: the usual chunks of a stream go from the engine's socket to the client's in one call of C for all of them.

In Python a chunk costs two system calls and as much again for what looks at it; this way hardly more than the system
calls (docs/performance.md, docs/decisions/0014). It is no second implementation of anything: what is not exactly the
usual chunk comes back and goes the ordinary way, through `Connection.data_received`, and where `_lane.c` could not be
compiled everything does.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, cast

try:
    from gateway.engine import _lane
except ImportError:  # no compiler where this was installed
    _lane = None  # type: ignore[assignment]  # a module, otherwise
COMPILED = _lane is not None

log = logging.getLogger("gateway.engine")

if TYPE_CHECKING:
    from gateway.engine._lane import Lane


class Rider(Protocol):
    """Whose stream it is."""

    def strayed(self, data: bytes, spilled: bool) -> None: ...

    def drop(self) -> None: ...


def opened(loop: asyncio.AbstractEventLoop) -> Lane | None:
    """A lane on this event loop, where there is one."""
    if _lane is None:
        log.info("streams take the ordinary way: the lane was not compiled")
        return None
    lane = _lane.Lane()

    def look() -> None:
        for ride, data, spilled in lane.look(loop.time()):
            rider = cast(Rider | None, ride.rider)
            if rider is None:
                continue  # it has left since
            try:
                rider.strayed(data, spilled)
            except Exception as error:  # as a transport does: one connection's trouble is not the others'
                loop.call_exception_handler({"message": "a stream on the lane failed", "exception": error})
                rider.drop()

    loop.add_reader(lane.fileno(), look)
    return lane


def closed(lane: Lane, loop: asyncio.AbstractEventLoop) -> None:
    """Nothing is looked at any more."""
    loop.remove_reader(lane.fileno())
