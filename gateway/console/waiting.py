"""Waiting for what is on its way: a change that this worker's snapshot does not show yet, a row not written yet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

SECONDS = 5.0


async def until(true: Callable[[], bool] | Callable[[], Awaitable[bool]], *, every: float = 0.02) -> bool:
    """Ask until it is true, for `SECONDS` at most; whether it was. `every`: seconds between two times."""
    for _ in range(int(SECONDS / every)):
        told = true()
        if told if isinstance(told, bool) else await told:
            return True
        await asyncio.sleep(every)
    return False
