"""A worker's voice: tells the control plane, through the store, what it has seen and what it holds.

It renews the worker's report each second and at once when told of a change, and hears the others' leases, so that
nobody evicts what a neighbour on the same engine still streams from. It knows nothing of engines: the report is
handed in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace

from gateway.domain import WorkerReport
from gateway.errors import Unavailable
from gateway.store import workers
from gateway.store.database import Database

log = logging.getLogger("gateway.control.reports")

RENEW_SECONDS = 1.0
TTL_SECONDS = 5.0
"""The longest a swap waits for a worker that died: afterwards its report has run out."""


class Reporter:
    """`describe` gives the worker's report as of now; `leased_elsewhere` is what other live workers stream from."""

    def __init__(self, database: Database, describe: Callable[[], WorkerReport]) -> None:
        self._database = database
        self._describe = describe
        self._changed = asyncio.Event()
        self._leased_elsewhere: frozenset[str] = frozenset()

    def changed(self) -> None:
        """Report now rather than at the next second."""
        self._changed.set()

    def leased_elsewhere(self) -> frozenset[str]:
        """As of the last renewal, at most a second old."""
        return self._leased_elsewhere

    async def run(self) -> None:
        """Report until cancelled; then withdraw, so that no swap waits for a worker that said goodbye."""
        try:
            while True:
                self._changed.clear()
                try:
                    await self._renew()
                except Unavailable as error:
                    log.warning("report not written", extra={"reason": error.message})
                # Not wait_for: on 3.11 it loses a cancellation that coincides with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RENEW_SECONDS):
                        await self._changed.wait()
        finally:
            await asyncio.shield(self._withdraw())

    async def _renew(self) -> None:
        mine = self._describe()
        await workers.report(self._database, mine, ttl=TTL_SECONDS)
        others = [other.leased for other in await workers.live(self._database) if other.worker != mine.worker]
        self._leased_elsewhere = frozenset[str]().union(*others)

    async def _withdraw(self) -> None:
        try:
            await workers.report(self._database, replace(self._describe(), ready=False), ttl=0)
        except Unavailable:
            log.info("left without withdrawing the report; it runs out by itself")
