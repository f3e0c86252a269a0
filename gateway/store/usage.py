"""Rows of `usage`: how many tokens an account (`tenant:acme`, `key:…`) used on a UTC day. Counted for budgets only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from gateway.store.database import Connection, Database


async def settle(
    db: Database, used: Mapping[tuple[str, date], int], accounts: Sequence[str], today: date
) -> dict[str, tuple[int, int]]:
    """Add what was used, by account and day, and return for each of `accounts` the tokens used on the day `today` and
    in its month so far, over all gateways on this database. Accounts without a row are left out.

    Raises `Unavailable`; then nothing was added (unless the connection was cut while it committed: trying again counts
    those tokens twice, which errs on the side of the budget).
    """
    async with db.transaction() as connection:
        if used:
            await _add(connection, used)
        return await _used(connection, accounts, today)


async def used(db: Database, accounts: Sequence[str], today: date) -> dict[str, tuple[int, int]]:
    """As `settle`, when there is nothing to add."""
    async with db.transaction(picture=True) as connection:
        return await _used(connection, accounts, today)


async def _used(connection: Connection, accounts: Sequence[str], today: date) -> dict[str, tuple[int, int]]:
    rows = await connection.fetch(
        "SELECT account, coalesce(sum(tokens) FILTER (WHERE day = $2), 0)::bigint AS today,"
        " sum(tokens)::bigint AS month FROM usage"
        " WHERE account = ANY($1::text[]) AND day >= date_trunc('month', $2::date) AND day <= $2 GROUP BY account",
        list(accounts),
        today,
    )
    return {row["account"]: (row["today"], row["month"]) for row in rows}


async def _add(connection: Connection, used: Mapping[tuple[str, date], int]) -> None:
    keys = sorted(used)  # all gateways lock their rows in one order, so none waits for another in a circle
    await connection.execute(
        "INSERT INTO usage (account, day, tokens) SELECT * FROM unnest($1::text[], $2::date[], $3::bigint[])"
        " ON CONFLICT (account, day) DO UPDATE SET tokens = usage.tokens + EXCLUDED.tokens",
        [account for account, _ in keys],
        [day for _, day in keys],
        [used[key] for key in keys],
    )
