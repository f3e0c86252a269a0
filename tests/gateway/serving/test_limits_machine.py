"""Two workers on one ledger against the simplest thing that could be right: exact fractions, and no workers.

A worker's death is in it: what it had under way is given back, and what it had counted stays counted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.domain import ApiKey, Limits, Tenant
from gateway.errors import RateLimited
from gateway.serving.ledger import Ledger
from gateway.serving.limits import Limiter, Reservation
from tests.gateway.serving.limited import ACME, Clock, headers

DAY = 86400
APRIL = 20544
"""The first day of April 2026, counted from 1970. The machine's days are in March and April."""


@dataclass
class Model:
    """One account. A bucket is (used, when)."""

    limits: Limits = field(default_factory=Limits)
    requests: tuple[Fraction, Fraction] = (Fraction(0), Fraction(0))
    tokens: tuple[Fraction, Fraction] = (Fraction(0), Fraction(0))
    running: int = 0
    held: int = 0
    used: dict[int, int] = field(default_factory=dict)

    def drained(self, bucket: tuple[Fraction, Fraction], limit: int | None, now: Fraction) -> Fraction:
        used, at = bucket
        return max(Fraction(0), used - (now - at) * Fraction(limit or 0, 60))

    def obey(self, limits: Limits, now: Fraction) -> None:
        old, self.limits = self.limits, limits
        self.requests = self.changed(self.requests, old.requests_per_minute, limits.requests_per_minute, now)
        self.tokens = self.changed(self.tokens, old.tokens_per_minute, limits.tokens_per_minute, now)

    def changed(
        self, bucket: tuple[Fraction, Fraction], old: int | None, new: int | None, now: Fraction
    ) -> tuple[Fraction, Fraction]:
        if old == new:
            return bucket
        used = self.drained(bucket, old or new, now)
        return (used if new is None else min(used, Fraction(new)), now)

    def left(self, now: Fraction) -> tuple[Fraction | None, Fraction | None]:
        """Requests and tokens of this minute, where they are limited."""
        rpm, tpm = self.limits.requests_per_minute, self.limits.tokens_per_minute
        return (
            None if rpm is None else rpm - self.drained(self.requests, rpm, now),
            None if tpm is None else tpm - self.drained(self.tokens, tpm, now) - self.held,
        )

    def fits(self, now: Fraction, day: int, tokens: int) -> bool:
        limits, (requests, minute) = self.limits, self.left(now)
        most, per_day, per_month = limits.concurrent_requests, limits.tokens_per_day, limits.tokens_per_month
        month = sum(used for on, used in self.used.items() if (on < APRIL) == (day < APRIL))
        return (
            (requests is None or requests >= 1)
            and (minute is None or minute >= tokens)
            and (most is None or self.running < most)
            and (per_day is None or self.used.get(day, 0) + self.held + tokens <= per_day)
            and (per_month is None or month + self.held + tokens <= per_month)
        )

    def take(self, now: Fraction, tokens: int) -> None:
        rpm = self.limits.requests_per_minute
        used = Fraction(0) if rpm is None else self.drained(self.requests, rpm, now)
        self.requests = (used + 1, now)
        self.running, self.held = self.running + 1, self.held + tokens

    def settle(self, now: Fraction, day: int, held: int, used: int | None) -> None:
        self.running, self.held = self.running - 1, self.held - held
        if used is None:
            self.requests = (max(Fraction(0), self.requests[0] - 1), self.requests[1])
            return
        tpm = self.limits.tokens_per_minute
        if tpm is not None:
            self.tokens = (self.drained(self.tokens, tpm, now) + used, now)
        if self.limits.tokens_per_day is not None or self.limits.tokens_per_month is not None:
            self.used[day] = self.used.get(day, 0) + used


@dataclass
class Running:
    reservation: Reservation
    worker: int
    accounts: list[Model]
    tokens: int


few = st.one_of(st.none(), st.integers(1, 8))
many = st.one_of(st.none(), st.integers(50, 500))
limits = st.builds(Limits, few, many, few, many, many)


class TwoWorkers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.ledger = Ledger.create(2, sets=4)
        self.ledgers = [self.ledger, self.ledger]
        self.limiters = [self.worker(0), self.worker(1)]
        self.models = {"tenant": Model(), "one": Model(), "other": Model()}
        self.limits: dict[str, Limits | None] = dict.fromkeys(self.models)
        self.open: list[Running] = []

    def worker(self, index: int) -> Limiter:
        self.ledgers[index] = Ledger.attach(os.dup(self.ledger.fd), index)
        return Limiter(self.ledgers[index], clock=self.clock.read, wall=self.clock.read_wall)

    def teardown(self) -> None:
        for ledger in {*self.ledgers, self.ledger}:
            ledger.close()

    @property
    def now(self) -> Fraction:
        return Fraction(self.clock.now)

    @property
    def day(self) -> int:
        return int(self.clock.wall // DAY)

    @initialize(of_tenant=limits, of_one=limits)
    def begin(self, of_tenant: Limits, of_one: Limits) -> None:
        self.limits.update(tenant=of_tenant, one=of_one)

    @rule(who=st.sampled_from(["tenant", "one", "other"]), limits=st.one_of(st.none(), limits))
    def change(self, who: str, limits: Limits | None) -> None:
        self.limits[who] = limits

    @rule(worker=st.integers(0, 1), who=st.sampled_from(["one", "other"]), tokens=st.integers(0, 60))
    def reserve(self, worker: int, who: str, tokens: int) -> None:
        accounts = []
        for name in ("tenant", who):
            if (limits := self.limits[name]) is not None:
                self.models[name].obey(limits, self.now)
                accounts.append(self.models[name])
        tenant = Tenant(ACME, limits=self.limits["tenant"])
        key = ApiKey(who, ACME, frozenset(), None, self.limits[who])
        fits = all(account.fits(self.now, self.day, tokens) for account in accounts)
        try:
            reservation = self.limiters[worker].reserve(tenant, key, tokens)
        except RateLimited as error:
            assert not fits, error.message
            assert error.retry_after is not None and 1 <= error.retry_after <= 60
            return
        assert fits
        assert (reservation is None) == (not accounts)
        if reservation is not None:
            for account in accounts:
                account.take(self.now, tokens)
            self.check_headers(reservation, accounts)
            self.open.append(Running(reservation, worker, accounts, tokens))

    def check_headers(self, reservation: Reservation, accounts: list[Model]) -> None:
        told = headers(reservation)
        left = [account.left(self.now) for account in accounts]
        for place, what in enumerate(("requests", "tokens")):
            found = [of[place] for of in left if of[place] is not None]
            assert told.get(f"x-ratelimit-remaining-{what}") == (str(int(min(found))) if found else None), (told, left)

    @rule(data=st.data(), used=st.one_of(st.none(), st.integers(0, 200)))
    def settle(self, data: st.DataObject, used: int | None) -> None:
        if self.open:
            running = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
            running.reservation.settle(used)
            running.reservation.settle(None)
            for account in running.accounts:
                account.settle(self.now, self.day, running.tokens, used)

    @rule(eighths=st.integers(0, 100))
    def wait(self, eighths: int) -> None:
        self.clock.move(eighths / 8)

    @rule()
    def sleep_over(self) -> None:
        if self.day < APRIL + 7:
            self.clock.wall += DAY

    @rule(worker=st.integers(0, 1))
    def die(self, worker: int) -> None:
        """kill -9, and the supervisor starts another in its place."""
        for running in [one for one in self.open if one.worker == worker]:
            self.open.remove(running)
            for account in running.accounts:
                account.running, account.held = account.running - 1, account.held - running.tokens
        self.ledgers[worker].close()
        self.limiters[worker] = self.worker(worker)

    @invariant()
    def nothing_is_lost_or_left_over(self) -> None:
        for name, account in self.models.items():
            limiter = self.limiters[0]
            seen = limiter.tenant(ACME) if name == "tenant" else limiter.key(name)
            seen.drain(self.clock.now)
            assert (seen.running, seen.held) == (account.running, account.held), name


TwoWorkers.TestCase.settings = settings(stateful_step_count=30, deadline=None)
test_two_workers_limit_as_one_would = TwoWorkers.TestCase
