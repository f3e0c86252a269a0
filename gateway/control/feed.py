"""Keeps a worker's Snapshot current: listens for the control plane's commits and replaces the picture.

It is the only one that does. While the database is away it says so in `Current.stale` and goes on trying; the last
picture stays, so known keys go on working. A notice that got lost costs `POLL_SECONDS`, no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from gateway.errors import Unavailable
from gateway.snapshot import Current
from gateway.store import preparations
from gateway.store.database import Database
from gateway.store.notices import SNAPSHOT, listen
from gateway.store.snapshots import read_snapshot, read_version

log = logging.getLogger("gateway.control.feed")

POLL_SECONDS = 3.0
PAUSES = (0.1, 3.0)
"""Seconds before the first and at most before any further attempt to reach a database that is away."""


class Feed:
    """`on_change` is called after each new picture, and must not block. `base_model` is the served model's name."""

    def __init__(
        self, db_url: str, db: Database, current: Current, on_change: Callable[[], None], *, base_model: str = ""
    ) -> None:
        self._db_url = db_url
        self._db = db
        self._current = current
        self._on_change = on_change
        self._base_model = base_model

    async def run(self) -> None:
        """Follow until cancelled."""
        pause = PAUSES[0]
        while True:
            try:
                async with listen(self._db_url, SNAPSHOT) as listener:
                    while True:
                        await self._catch_up()
                        pause = PAUSES[0]
                        await listener.wait(POLL_SECONDS)
            except Unavailable:
                if not self._current.stale:
                    log.warning("the snapshot is stale")
                self._current.stale = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSES[1])

    async def _catch_up(self) -> None:
        await preparations.sweep(self._db)
        if self._current.stale or await read_version(self._db) != self._current.snapshot.version:
            self._current.snapshot = replace(await read_snapshot(self._db), base_model=self._base_model)
            self._current.stale = False
            self._on_change()
