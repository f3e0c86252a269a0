"""Makes a place on the engine for a version that is about to be loaded, or says why there is none.

It knows who sits there and who is wanted, and asks whoever may to evict; it speaks to no engine itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from adapters.ref import AdapterRef
from gateway.errors import AdapterRefused, Unavailable
from gateway.serving.occupancy import Occupancy, Wishes

YIELDS, YIELD_SECONDS = 10, 0.1
"""How often, and after which pause, a shadow's candidate is tried to be evicted: the engine needs a step or two until
the requests that were given up are off it."""


class Places:
    """`evict` takes a version off the engine and says whether it could. `on_yield` is set by shadow traffic, and called
    when its candidate's place is needed: what runs on the candidate is to end now."""

    def __init__(self, seats: Occupancy, wishes: Wishes, evict: Callable[[AdapterRef], Awaitable[bool]]) -> None:
        self._seats, self._wishes, self._evict = seats, wishes, evict
        self.on_yield: Callable[[], None] = lambda: None

    async def make(self, ref: AdapterRef, capacity: int) -> None:
        """One place stays free for a swap: only what the snapshot wants may take the last.

        A shadow's candidate evicts nobody, and gives its own place up to anybody. Raises `AdapterRefused` or
        `Unavailable` when there is no place.
        """
        wanted, others = ref in self._wishes.wanted(), self._seats.others(ref)
        if others < (capacity if wanted else capacity - 1):
            return
        if ref in self._wishes.spare():
            raise AdapterRefused("The engine holds as many versions as it can, so it has no place for a shadow's.")
        idlest = self._seats.idlest(ref)
        if idlest is not None and await self._evict(idlest):
            return
        if await self._evict_spare():
            return
        if wanted:
            raise AdapterRefused(
                f"The engine holds {others} versions, as many as it can, and all are in use.",
                remedy="Raise max_cpu_loras, or point fewer aliases at versions of their own.",
            )
        raise Unavailable("The engine has no place free for this version.", remedy="Try again later.")

    async def _evict_spare(self) -> bool:
        """Take a shadow's candidate off the engine, if there is one."""
        found = min(self._wishes.spare() & self._seats.on_engine, default=None)
        if found is None:
            return False
        for _ in range(YIELDS):
            self.on_yield()
            if await self._evict(found):
                return True
            await asyncio.sleep(YIELD_SECONDS)
        return False
