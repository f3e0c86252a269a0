"""Tells the store what was used of budgets, about each second, and learns what all gateways together have used.

So a budget outlives its gateways and holds for all of them on one database. What they can overshoot it by is what the
others use and have under way in about two seconds: until they have written it, and until it is read here. While the
database is away, limits go on from memory, and what was used is written once it is back. It knows no SQL: the store is
handed in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime

from gateway.domain import Limits
from gateway.errors import GatewayError
from gateway.serving.accounts import Account
from gateway.serving.limits import Limiter
from gateway.snapshot import Current, Snapshot

log = logging.getLogger("gateway.budgets")

ROUND_SECONDS = 1.0
FIRST_SECONDS = 0.05
"""Until there is a picture: whoever has used a budget up should not get a second of grace from each start."""

Settle = Callable[[Mapping[tuple[str, date], int], Sequence[str], date], Awaitable[Mapping[str, tuple[int, int]]]]
"""Adds up what accounts used on days; returns what the named accounts used today and this month, where they used any.
Raises `Unavailable`, and then has added nothing."""


class Budgets:
    """`run` in the background, `flush` on the way out. `settle` is the store's."""

    def __init__(self, limiter: Limiter, current: Current, settle: Settle) -> None:
        self._limiter, self._current, self._settle = limiter, current, settle
        self._seen: Snapshot | None = None
        self._away = False
        self._turn = asyncio.Lock()  # the last flush comes while the loop's round may be under way

    async def run(self) -> None:
        """A round each second, until cancelled."""
        while True:
            await self.round()
            await asyncio.sleep(ROUND_SECONDS if self._current.snapshot.version else FIRST_SECONDS)

    async def flush(self, seconds: float) -> None:
        """Write what is left, in so many seconds at most. Call it after the last request has been settled."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.round()
        if left := sum(sum(account.unwritten.values()) for account in self._limiter.active):
            log.error("tokens used of budgets not written before the end", extra={"tokens": left})

    async def round(self) -> None:
        """Write and read what concerns the accounts that were used, and those that are new."""
        async with self._turn:
            await self._round()

    async def _round(self) -> None:
        limiter = self._limiter
        self._follow(self._current.snapshot)
        accounts = list(limiter.active)
        if not accounts:
            return
        limiter.active.clear()
        limiter.calendar.look()
        calendar = limiter.calendar
        today, day, month = calendar.date, calendar.day, calendar.month
        taken = [(account, account.unwritten) for account in accounts]
        for account in accounts:
            account.unwritten = {}
        used = {(account.name, _date(on)): tokens for account, days in taken for on, tokens in days.items()}
        try:
            totals = await self._settle(used, [account.name for account in accounts], today)
        except GatewayError as error:
            self._put_back(taken)
            if not self._away:
                log.warning("budgets go on from memory", extra={"reason": error.message})
            self._away = True
            return
        except BaseException:
            self._put_back(taken)  # cancelled on the way out: the last flush writes it
            raise
        self._away = False
        self._learn(accounts, totals, day, month)

    def _put_back(self, taken: list[tuple[Account, dict[int, int]]]) -> None:
        for account, days in taken:
            for day, tokens in days.items():
                account.unwritten[day] = account.unwritten.get(day, 0) + tokens
            self._limiter.active.add(account)

    def _learn(self, accounts: list[Account], totals: Mapping[str, tuple[int, int]], day: int, month: int) -> None:
        limiter = self._limiter
        if limiter.shared:
            limiter.ledger.lock()
        try:
            for account in accounts:
                of_day, of_month = totals.get(account.name, (0, 0))
                account.learn(limiter.clock(), day, month, of_day, of_month)
        finally:
            if limiter.shared:
                limiter.ledger.unlock()

    def _follow(self, snapshot: Snapshot) -> None:
        """With a new picture: look up new budgets before their first request, and forget accounts that are gone."""
        if snapshot is self._seen:
            return
        self._seen = snapshot
        limiter = self._limiter
        tenants = [tenant for tenant in snapshot.tenants.values() if tenant.limits is not None]
        keys = [key for key in snapshot.keys.values() if key.limits is not None]
        limiter.keep({tenant.name for tenant in tenants}, {key.id for key in keys})
        accounts = [limiter.tenant(tenant.name) for tenant in tenants if _budgeted(tenant.limits)]
        accounts += [limiter.key(key.id) for key in keys if _budgeted(key.limits)]
        limiter.active.update(account for account in accounts if account.unread)


def _budgeted(limits: Limits | None) -> bool:
    return limits is not None and (limits.tokens_per_day is not None or limits.tokens_per_month is not None)


def _date(day: int) -> date:
    return datetime.fromtimestamp(day * 86400, UTC).date()
