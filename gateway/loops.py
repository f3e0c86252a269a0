"""Endless loops beside a block of code. It knows nothing of what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Loop = Callable[[], Awaitable[None]]


@asynccontextmanager
async def beside(*loops: Loop) -> AsyncIterator[None]:
    """Run endless loops beside the block. One that fails ends the block; the end of the block ends them."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_forever(loop)) for loop in loops]
        yield
        for task in tasks:
            task.cancel()


async def each_second(do: Callable[[], None]) -> None:
    """Do it now and every second, until cancelled."""
    while True:
        do()
        await asyncio.sleep(1)


async def _forever(loop: Loop) -> None:
    await loop()
