"""What came in lately, kept in memory step by step, so that a page which asks every few seconds costs the database
little: a step that is over is read once, and the newest ones no oftener than twenty times what reading them took.

One for each worker. It knows no page.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gateway.store import live
from gateway.store.database import Database
from gateway.store.live import Step

REST = 20
"""Looking at traffic then takes at most 5 % of one connection's time, whatever the traffic."""
FRESH_SECONDS = 2.0
BUDGET_SECONDS = 1.5
"""What older steps may take of one look; the next one goes on with those that are still missing."""
MOST = 200
"""Tenants and windows in memory, at some 50 kB each."""


@dataclass(frozen=True, slots=True)
class Window:
    """How far back, in which steps, and how much older time one statement reads. A step is kept once it is `settled`
    ago: requests that took longer are missing in it."""

    title: str
    length: timedelta
    step: timedelta
    chunk: timedelta
    settled: timedelta


HOUR = Window("hour", timedelta(hours=1), timedelta(minutes=1), timedelta(minutes=30), timedelta(minutes=10))
DAY = Window("day", timedelta(hours=24), timedelta(minutes=15), timedelta(hours=1), timedelta(minutes=20))


@dataclass(frozen=True, slots=True)
class View:
    """Steps, the oldest first, the last one perhaps not over `now`. `missing` older steps are still to be read."""

    at: list[datetime]
    steps: list[Step]
    missing: int
    now: datetime


@dataclass(slots=True)
class _Kept:
    steps: dict[datetime, Step] = field(default_factory=dict)
    view: View | None = None
    again: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Recent:
    """`read` is the whole of it."""

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        budget: float = BUDGET_SECONDS,
    ) -> None:
        self._database, self._now, self._clock, self._budget = database, now, clock, budget
        self._kept: OrderedDict[tuple[str, Window], _Kept] = OrderedDict()

    async def read(self, tenant: str, window: Window) -> View:
        """The window's steps up to now. Raises `Unavailable`."""
        kept = self._kept.setdefault((tenant, window), _Kept())
        self._kept.move_to_end((tenant, window))
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
        async with kept.lock:
            if kept.view is None or self._clock() >= kept.again:
                kept.view = await self._look(kept, tenant, window)
            return kept.view

    async def _look(self, kept: _Kept, tenant: str, window: Window) -> View:
        now, step = self._now(), window.step
        begin, settled = _floor(now, step) - window.length + step, _floor(now - window.settled, step)
        for old in [at for at in kept.steps if at < begin or at >= settled]:
            del kept.steps[old]
        # From the last step that is kept on: after a quiet time without looks that is more than the newest ones.
        began = self._clock()
        newest = await live.traffic(self._database, tenant, since=settled, until=now, step=step)
        took = self._clock() - began
        missing = await self._fill(kept, tenant, window, begin, settled)
        kept.again = self._clock() + max(FRESH_SECONDS, REST * took)
        steps: dict[datetime, Step] = {**kept.steps, **newest}
        at = [begin + n * step for n in range(window.length // step)]
        return View(at, [steps.get(one, {}) for one in at], missing, now)

    async def _fill(self, kept: _Kept, tenant: str, window: Window, begin: datetime, settled: datetime) -> int:
        """Read older steps, the newest first, as far as the time for it goes; how many are missing then."""
        missing = [at for at in _steps(begin, settled, window.step) if at not in kept.steps]
        most, until = window.chunk // window.step, self._clock() + self._budget
        while missing and self._clock() < until:
            part, missing = missing[-most:], missing[:-most]
            since, end = part[0], part[-1] + window.step
            found = await live.traffic(self._database, tenant, since=since, until=end, step=window.step)
            kept.steps.update((at, found.get(at, {})) for at in _steps(since, end, window.step))
        return len(missing)


def _floor(moment: datetime, step: timedelta) -> datetime:
    seconds = step.total_seconds()
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)


def _steps(since: datetime, until: datetime, step: timedelta) -> list[datetime]:
    return [since + n * step for n in range(max(0, (until - since) // step))]
