"""Tokens used of budgets, on real PostgreSQL: added up by day, over gateways, and read back by day and month."""

from __future__ import annotations

import asyncio
from datetime import date

from gateway.store.database import Database
from gateway.store.usage import settle

TODAY = date(2026, 3, 31)


async def test_usage_adds_up_by_account_over_the_day_and_the_calendar_month(db: Database) -> None:
    used = {
        ("tenant:acme", date(2026, 2, 28)): 1,
        ("tenant:acme", date(2026, 3, 1)): 10,
        ("tenant:acme", TODAY): 100,
        ("tenant:acme", date(2026, 4, 1)): 1000,  # a gateway whose clock is ahead
        ("key:one", date(2026, 3, 2)): 5,
    }
    accounts = ["tenant:acme", "key:one", "key:unused"]
    assert await settle(db, used, accounts, TODAY) == {"tenant:acme": (100, 110), "key:one": (0, 5)}
    again = await settle(db, {("tenant:acme", TODAY): 7}, ["tenant:acme"], TODAY)
    assert again == {"tenant:acme": (107, 117)}
    assert await settle(db, {}, [], TODAY) == {}


async def test_many_gateways_may_write_the_same_accounts_at_once(db: Database) -> None:
    accounts = [f"tenant:t{number}" for number in range(20)]

    async def gateway(order: list[str]) -> None:
        for _ in range(10):
            await settle(db, {(account, TODAY): 1 for account in order}, order, TODAY)

    await asyncio.gather(*(gateway(order) for order in (accounts, accounts[::-1], accounts[7:] + accounts[:7])))
    assert await settle(db, {}, accounts, TODAY) == dict.fromkeys(accounts, (30, 30))
