"""Budgets on real PostgreSQL: common to all gateways on it, there after a restart, and in force while it is away.

Each `Host` is a gateway on a machine of its own: a ledger, a limiter and the loop's rounds, told when to go round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import pytest

from gateway.domain import Tenant
from gateway.errors import QuotaExceeded, Unavailable
from gateway.serving.budgets import Budgets
from gateway.snapshot import Current, Snapshot
from gateway.store import usage
from gateway.store.database import Database
from tests.gateway.serving.limited import Clock, Gate, key, tenant

WHO = tenant(tokens_per_day=1000, tokens_per_month=1500)


class Host(Gate):
    """`away`: the database cannot be reached from here."""

    def __init__(self, db: Database, clock: Clock, who: Tenant = WHO) -> None:
        super().__init__(clock=clock)
        self.db, self.away = db, False
        current = Current(Snapshot(version=1, tenants={who.name: who}, keys={b"k": key()}))
        self.budgets = Budgets(self.limiter, current, self.settle)

    async def settle(
        self, used: Mapping[tuple[str, date], int], accounts: Sequence[str], today: date
    ) -> Mapping[str, tuple[int, int]]:
        if self.away:
            raise Unavailable("The database cannot be reached.")
        return await usage.settle(self.db, used, accounts, today)

    def use(self, tokens: int) -> None:
        self.ask(WHO, tokens=tokens).settle(tokens)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_what_one_gateway_used_the_others_know_after_a_round_of_each(db: Database, clock: Clock) -> None:
    one, other = Host(db, clock), Host(db, clock)
    one.use(600)
    other.use(300)
    await one.budgets.round()
    await other.budgets.round()
    assert isinstance(other.refused(WHO, tokens=101), QuotaExceeded)
    other.use(100)
    await other.budgets.round()
    one.ask(WHO, tokens=400).settle(None)  # it has not heard of it yet
    await one.budgets.round()
    assert isinstance(one.refused(WHO), QuotaExceeded)


async def test_a_gateway_that_starts_knows_what_was_used_before_its_first_request(db: Database, clock: Clock) -> None:
    before = Host(db, clock)
    before.use(1000)
    await before.budgets.flush(10)
    after = Host(db, clock)
    await after.budgets.round()
    assert isinstance(after.refused(WHO), QuotaExceeded)


async def test_a_day_begins_at_zero_and_a_month_goes_on(db: Database, clock: Clock) -> None:
    one, other = Host(db, clock), Host(db, clock)
    one.use(900)  # on 30 March
    clock.move(86400)
    await one.budgets.round()  # late, but to the day on which it was used
    one.use(500)
    await one.budgets.round()
    await other.budgets.round()
    error = other.refused(WHO, tokens=101)
    assert "per month" in error.message and "Used 1400" in error.message
    clock.move(86400)  # 1 April
    other.use(1000)
    assert isinstance(other.refused(WHO), QuotaExceeded)


async def test_while_the_database_is_away_budgets_hold_from_memory_and_are_written_later(
    db: Database, clock: Clock
) -> None:
    host, other = Host(db, clock), Host(db, clock)
    await host.budgets.round()
    host.away = True
    for _ in range(10):
        host.use(100)
        await host.budgets.round()
    assert isinstance(host.refused(WHO), QuotaExceeded)
    host.away = False
    await host.budgets.flush(10)
    await other.budgets.round()
    assert isinstance(other.refused(WHO), QuotaExceeded)
    await host.budgets.round()
    assert await usage.settle(db, {}, ["tenant:acme"], clock_date(clock)) == {"tenant:acme": (1000, 1000)}


async def test_a_raised_budget_is_open_at_once(db: Database, clock: Clock) -> None:
    host = Host(db, clock)
    host.use(1000)
    await host.budgets.round()
    host.refused(WHO)
    host.ask(tenant(tokens_per_day=1500), tokens=500)


async def test_nothing_is_asked_of_the_database_for_who_has_no_budget(db: Database, clock: Clock) -> None:
    host = Host(db, clock, tenant(requests_per_minute=5))
    host.away = True
    host.ask(tenant(requests_per_minute=5), tokens=5).settle(5)
    await host.budgets.round()
    assert not host.limiter.active


def clock_date(clock: Clock) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + int(clock.wall // 86400))
