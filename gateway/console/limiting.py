"""Limits and what was used of them, as people read and type them. Values in, text or changes out; it knows no page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from gateway.console.reading import whole_number
from gateway.control.limits import MOST
from gateway.domain import Limits
from gateway.store import usage
from gateway.store.database import Database

LABELS = {
    "requests_per_minute": "Requests per minute",
    "tokens_per_minute": "Tokens per minute",
    "concurrent_requests": "Requests at once",
    "tokens_per_day": "Tokens per day (UTC)",
    "tokens_per_month": "Tokens per month (UTC)",
}
assert LABELS.keys() == MOST.keys()  # a new limit needs its label here


@dataclass(frozen=True, slots=True)
class Used:
    """Tokens, of the UTC day and month so far. They are counted only where a day or a month is limited."""

    day: int
    month: int


@dataclass(frozen=True, slots=True)
class Line:
    """One limit. `used` is known of a day's and a month's; `share` of it is used."""

    name: str
    label: str
    limit: int | None
    used: int | None

    @property
    def share(self) -> float | None:
        return self.used / self.limit if self.used is not None and self.limit else None


async def used(database: Database, accounts: Sequence[str]) -> dict[str, Used]:
    """By account ("tenant:acme", "key:key-0123…"); those of which nothing was counted are missing."""
    found = await usage.used(database, accounts, datetime.now(UTC).date())
    return {account: Used(*tokens) for account, tokens in found.items()}


def lines(limits: Limits | None, used: Used | None) -> list[Line]:
    """All there are, set or not."""
    values = asdict(limits or Limits())
    counted = {"tokens_per_day": used.day, "tokens_per_month": used.month} if used is not None else {}
    return [Line(name, label, values[name], counted.get(name)) for name, label in LABELS.items()]


def short(limits: Limits | None) -> str:
    """Those that are set, in one line."""
    return ", ".join(f"{one.limit:,} {one.label.lower()}" for one in lines(limits, None) if one.limit is not None)


def changes(fields: Mapping[str, str]) -> dict[str, int | None]:
    """What a form says of each limit; empty: there is none. Raises `InvalidRequest` for what is no whole number."""
    return {name: whole_number(fields, name) if fields.get(name, "").strip() else None for name in LABELS}
