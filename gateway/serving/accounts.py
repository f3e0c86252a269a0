"""One tenant's or key's counters against its limits: what fits, what is taken, what is given back.

A minute's requests drain from a bucket as wide as the limit, at the limit's rate, and count when they are taken in. A
minute's tokens drain likewise but count when they are known, in the end; until then all that a request may use is held
against the limit (and the budgets), so that no interplay of reservations and refunds lets more through than the bucket
does. Counters say what is used, not what is left: a changed limit applies to them as they are. It knows no clock, no
HTTP and no other worker: whoever calls it holds the ledger's lock and hands in the monotonic moment.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from gateway.domain import Limits
from gateway.serving.ledger import (
    DAY,
    DAY_TOKENS,
    HELD,
    MONTH,
    MONTH_TOKENS,
    REQUESTS,
    REQUESTS_AT,
    RPM,
    RUNNING,
    TAG,
    TOKENS,
    TOKENS_AT,
    TPM,
    Cells,
    Ledger,
    tag_of,
)

SLACK = 1e-6
"""Of a request or a token: draining is floating-point arithmetic, and must not refuse what just fits."""


class Calendar:
    """The UTC day (days since 1970) and month (months since year 0) as of the last `look`. `until`: when the day ends,
    in POSIX seconds."""

    __slots__ = ("_since", "_wall", "date", "day", "month", "month_until", "until")

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._since = self.until = 0.0
        self.look()

    def look(self) -> float:
        """Bring it up to date; returns the wall clock's moment."""
        now = self._wall()
        if not self._since <= now < self.until:
            self.date = datetime.fromtimestamp(now, UTC).date()
            self.day, self.month = int(now // 86400), self.date.year * 12 + self.date.month - 1
            self._since, self.until = self.day * 86400.0, (self.day + 1) * 86400.0
            first = (self.date.replace(day=1) + timedelta(days=32)).replace(day=1)
            self.month_until = datetime(first.year, first.month, 1, tzinfo=UTC).timestamp()
        return now


class Account:
    """`name` is what it goes by in the ledger and the store (`tenant:acme`), `who` in sentences. `unwritten` are tokens
    by day that the store has not been told of; an account with budgets adds itself to `active` when it is used.
    `unread`: the store has not been asked for its totals yet.

    `fits` leaves the drained counters in `requests`, `tokens`, `running` and `held`, for `take` and `head`.
    """

    __slots__ = (
        *("name", "who", "tag", "cells", "own", "ledger", "calendar", "active"),
        *("limits", "rpm", "rps", "tpm", "tps", "most", "per_day", "per_month", "unwritten", "unread"),
        *("requests", "tokens", "running", "held"),
    )

    cells: Cells
    own: Cells | None

    def __init__(self, name: str, who: str, ledger: Ledger, calendar: Calendar, active: set[Account]) -> None:
        self.name, self.who, self.tag = name, who, tag_of(name)
        self.ledger, self.calendar, self.active = ledger, calendar, active
        self.cells, self.own = [0.0], None
        self.unwritten: dict[int, int] = {}
        self.unread = True
        self.requests = self.tokens = self.running = self.held = 0.0
        self._obey(Limits())

    def limit(self, limits: Limits, now: float) -> None:
        """From now on these hold, for what has been counted too: at most as much as would just have been let through,
        so that a limit made much smaller is one that refills, and not a closed door."""
        self._obey(limits)
        if self.cells[TAG] != self.tag:
            self.settle_down(now)
        self._change(REQUESTS, REQUESTS_AT, RPM, self.rpm or 0, now)
        self._change(TOKENS, TOKENS_AT, TPM, self.tpm or 0, now)

    def _change(self, count: int, at: int, rate: int, limit: float, now: float) -> None:
        """Count until now as it was limited until now. The ledger knows how: this worker may have just begun."""
        cells = self.cells
        before = cells[rate]
        if before != limit:
            drained = cells[count] - (now - cells[at]) * (before or limit) / 60.0
            cells[count] = max(0.0, min(drained, limit) if limit else drained)
            cells[at], cells[rate] = now, limit

    def _obey(self, limits: Limits) -> None:
        self.limits = limits
        self.rpm, self.tpm, self.most = limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests
        self.rps, self.tps = (self.rpm or 0) / 60.0, (self.tpm or 0) / 60.0
        self.per_day, self.per_month = limits.tokens_per_day, limits.tokens_per_month

    def settle_down(self, now: float) -> None:
        """Find the account's cells, or make them: at first, and when the ledger gave an idle account's to another."""
        self.cells, self.own = self.ledger.place(self.name, now)

    def fits(self, now: float, tokens: float) -> bool:
        """Whether one more request may come in that uses up to `tokens`."""
        if self.cells[TAG] != self.tag:
            self.settle_down(now)
        cells = self.cells
        self.running, self.held = cells[RUNNING], cells[HELD]
        rpm, tpm = self.rpm, self.tpm
        if rpm is not None:
            used = cells[REQUESTS] - (now - cells[REQUESTS_AT]) * self.rps
            self.requests = used = used if used > 0.0 else 0.0
            if used + 1.0 > rpm + SLACK:
                return False
        else:
            self.requests = 0.0
        if tpm is not None:
            used = cells[TOKENS] - (now - cells[TOKENS_AT]) * self.tps
            self.tokens = used = used if used > 0.0 else 0.0
            if used + self.held + tokens > tpm + SLACK:
                return False
        if self.most is not None and self.running + 1.0 > self.most:
            return False
        if self.per_day is not None or self.per_month is not None:
            used_today, used_this_month = self.look()
            tokens += self.held
            return (self.per_day is None or used_today + tokens <= self.per_day) and (
                self.per_month is None or used_this_month + tokens <= self.per_month
            )
        return True

    def drain(self, now: float) -> None:
        """Bring `requests`, `tokens`, `running` and `held` up to date, deciding nothing."""
        if self.cells[TAG] != self.tag:
            self.settle_down(now)
        cells = self.cells
        self.running, self.held = cells[RUNNING], cells[HELD]
        self.requests = max(0.0, cells[REQUESTS] - (now - cells[REQUESTS_AT]) * self.rps)
        self.tokens = max(0.0, cells[TOKENS] - (now - cells[TOKENS_AT]) * self.tps)

    def take(self, now: float, tokens: float) -> None:
        """Take the request in that fitted. Own column before the sum, and the other way round in `settle`: wherever a
        worker is killed, its column tells at least what stands in the sum for it."""
        cells, own = self.cells, self.own
        cells[REQUESTS] = self.requests + 1.0
        cells[REQUESTS_AT] = now
        if own is not None:
            own[0] += 1.0
            own[1] += tokens
        cells[RUNNING] = self.running + 1.0
        cells[HELD] = self.held + tokens

    def settle(self, clock: Callable[[], float], held: float, used: int | None) -> None:
        """The request is over: it used so many tokens. None: it never came to anything, so it does not count at all."""
        cells, own = self.cells, self.own
        cells[RUNNING] -= 1.0
        cells[HELD] -= held
        if own is not None:
            own[0] -= 1.0
            own[1] -= held
        if used is None:
            cells[REQUESTS] -= 1.0  # whoever reads it next drains it, and never below zero
            return
        if self.tpm is not None:
            now = clock()
            tokens = cells[TOKENS] - (now - cells[TOKENS_AT]) * self.tps
            cells[TOKENS] = tokens + used if tokens > 0.0 else used
            cells[TOKENS_AT] = now
        if self.per_day is not None or self.per_month is not None:
            today, month = self.look()
            cells[DAY_TOKENS], cells[MONTH_TOKENS] = today + used, month + used
            day = self.calendar.day
            self.unwritten[day] = self.unwritten.get(day, 0) + used

    def look(self, *, used: bool = True) -> tuple[float, float]:
        """The tokens used today and this month, as far as this host knows. A new day and month begin at zero."""
        calendar, cells = self.calendar, self.cells
        calendar.look()
        if used:
            self.active.add(self)
        # A clock a little behind a neighbour's must not open yesterday again.
        day, month = cells[DAY], cells[MONTH]
        if day != calendar.day and day != calendar.day + 1.0:
            cells[DAY], cells[DAY_TOKENS] = calendar.day, 0.0
        if month != calendar.month and month != calendar.month + 1.0:
            cells[MONTH], cells[MONTH_TOKENS] = calendar.month, 0.0
        return cells[DAY_TOKENS], cells[MONTH_TOKENS]

    def learn(self, now: float, day: int, month: int, tokens_of_day: int, tokens_of_month: int) -> None:
        """What all gateways together have used, as the store says: at least that. This host may know of more."""
        self.unread = False
        self.drain(now)
        self.look(used=False)
        cells = self.cells
        if cells[DAY] == day:
            cells[DAY_TOKENS] = max(cells[DAY_TOKENS], tokens_of_day + self.unwritten.get(day, 0))
        if cells[MONTH] == month:
            since = sum(self.unwritten.values())
            cells[MONTH_TOKENS] = max(cells[MONTH_TOKENS], tokens_of_month + since)
