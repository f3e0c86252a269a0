"""How a version is fetched for the engine: from the shelf to a local directory, one flight at a time per version.

It knows neither the engine nor what is wanted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from adapters.errors import ContractError
from adapters.ref import AdapterRef
from gateway.errors import AdapterRefused, GatewayError, Unavailable

log = logging.getLogger("gateway.residency")

Outcome = GatewayError | None
_OVER = Unavailable("The gateway is shutting down.")


class Shelf(Protocol):
    """Where versions lie as verified local directories."""

    async def path(self, ref: AdapterRef) -> Path: ...


async def take_down(shelf: Shelf, ref: AdapterRef) -> Path:
    """A local directory of this version. Raises `AdapterRefused` with a sentence that has no path in it."""
    try:
        return await shelf.path(ref)
    except ContractError as error:
        raise AdapterRefused(str(error)) from error
    except Exception as error:
        # A shelf may be any file system in the world, with errors of its own; their text belongs in the log only.
        log.warning("version not opened", extra={"ref": str(ref), "reason": str(error)}, exc_info=error)
        raise AdapterRefused("It could not be read from the adapter store.") from error


class Flights:
    """Loads under way: who asks for a version that is already being loaded waits for that same load.

    Each runs in a task of its own, so that a client that leaves does not end it for the others.
    """

    def __init__(self, load: Callable[[AdapterRef], Awaitable[Outcome]]) -> None:
        self._load = load
        self._flights: dict[AdapterRef, asyncio.Future[Outcome]] = {}
        self.group: asyncio.TaskGroup | None = None

    def begin(self, ref: AdapterRef) -> asyncio.Future[Outcome]:
        """The load of `ref`, begun now unless it is under way. Its result is an error or None; it raises nothing."""
        flight = self._flights.get(ref)
        if flight is None:
            flight = asyncio.get_running_loop().create_future()
            if self.group is None:
                flight.set_result(_OVER)
            else:
                self._flights[ref] = flight
                self.group.create_task(self._fly(ref, flight))
        return flight

    async def join(self, ref: AdapterRef) -> Outcome:
        """Wait for the load of `ref`. Being cancelled ends the waiting, not the load."""
        return await asyncio.shield(self.begin(ref))

    async def _fly(self, ref: AdapterRef, flight: asyncio.Future[Outcome]) -> None:
        outcome: Outcome = _OVER
        try:
            outcome = await self._load(ref)
        finally:
            del self._flights[ref]
            flight.set_result(outcome)
