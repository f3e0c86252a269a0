"""What a client is told of its limits: the x-ratelimit headers, and why a request was refused and when to come again.

In the words, headers and types of OpenAI's API. It decides nothing: accounts in, bytes and errors out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from gateway.errors import QuotaExceeded, RateLimited, RequestsLimited, TokensLimited
from gateway.serving.accounts import SLACK, Account

LONGEST_WAIT = 60.0
"""Seconds. OpenAI's clients take no longer Retry-After seriously."""
BUSY_WAIT = 1.0
"""When nobody can know how long it takes: until one of the tenant's own requests has ended."""

NO_RETRY = (b"x-should-retry", b"false")

_LINES = b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%b\r\n"
_REQUESTS, _TOKENS = (_LINES % (what, what, what) for what in (b"requests", b"tokens"))
_BOTH = _REQUESTS + _TOKENS


def lines_of(first: Account, second: Account | None, requests: float, tokens: float) -> bytes:
    """The headers, after so many further requests and tokens than `fits` saw, each line ended by CRLF: of the two
    accounts each time the one with less left, and nothing of what is not limited."""
    by_requests = by_tokens = first
    if second is not None:
        by_requests, by_tokens = _tighter(first, second)
    rpm, tpm = by_requests.rpm, by_tokens.tpm
    of_requests: tuple[int, int, bytes] | tuple[()] = ()
    if rpm is not None:
        used = by_requests.requests + requests
        left = int(rpm - used + SLACK)
        of_requests = (rpm, left if left > 0 else 0, span(used / by_requests.rps))
        if tpm is None:
            return _REQUESTS % of_requests
    if tpm is None:
        return b""
    used = by_tokens.tokens + by_tokens.held + tokens
    left = int(tpm - used + SLACK)
    of_tokens = (tpm, left if left > 0 else 0, span(used / by_tokens.tps))
    return _BOTH % (of_requests + of_tokens) if of_requests else _TOKENS % of_tokens


def _tighter(first: Account, second: Account) -> tuple[Account, Account]:
    by_requests = by_tokens = first
    if second.rpm is not None and (first.rpm is None or second.rpm - second.requests < first.rpm - first.requests):
        by_requests = second
    if second.tpm is not None and (
        first.tpm is None or second.tpm - second.tokens - second.held < first.tpm - first.tokens - first.held
    ):
        by_tokens = second
    return by_requests, by_tokens


def span(seconds: float) -> bytes:
    """A time as OpenAI writes it: 120ms, 8.64s, 6m0s. Rounded up to the millisecond, above a minute to the second."""
    if seconds < 1.0:
        return b"%dms" % int(seconds * 1000.0 + 0.999)
    if seconds < 60.0:
        return b"%gs" % (int(seconds * 1000.0 + 0.999) / 1000.0)
    return b"%dm%ds" % divmod(int(seconds + 0.999), 60)


class Reason(NamedTuple):
    """`wait`: seconds until it may be otherwise. `final`: it will not, so trying again is of no use."""

    error: RateLimited
    wait: float
    final: bool = False


def refusal(first: Account, second: Account | None, now: float, tokens: int) -> RateLimited:
    """Why a request of up to `tokens` tokens does not fit. Of several reasons the one that lasts longest: who is told
    to come again should then find nothing else in the way."""
    reasons: list[Reason] = []
    for account in (first,) if second is None else (first, second):
        account.drain(now)
        reasons += [*_by_budget(account, tokens), *_by_rate(account, tokens)]
    # Without a reason only where a neighbour that is frozen lost the lock, and another changed the counters meanwhile.
    busy = Reason(RateLimited("Rate limit reached.", remedy=_again(BUSY_WAIT)), BUSY_WAIT)
    error, wait, final = max(reasons, key=lambda reason: (reason.final, reason.wait), default=busy)
    wait = min(wait, LONGEST_WAIT)
    error.retry_after = max(1, math.ceil(wait))
    headers = [line.partition(b": ") for line in lines_of(first, second, 0.0, 0.0).split(b"\r\n") if line]
    error.limits = (
        (b"retry-after-ms", b"%d" % max(1, math.ceil(wait * 1000.0))),
        *((name, value) for name, _, value in headers),
        *((NO_RETRY,) if final else ()),
    )
    return error


def _by_rate(account: Account, tokens: int) -> Iterator[Reason]:
    """By what refills: a minute's requests and tokens, and the requests at one time."""
    who, rpm, tpm, most = account.who, account.rpm, account.tpm, account.most
    if rpm is not None and account.requests + 1.0 > rpm + SLACK:
        wait = (account.requests + 1.0 - rpm) / account.rps
        told = f"Rate limit reached for {who} on requests per min (RPM): Limit {rpm}, Used {account.requests:.0f}, "
        yield Reason(RequestsLimited(f"{told}Requested 1.", remedy=_again(wait)), wait)
    if tpm is not None and tokens > tpm:
        told = f"Request too large for {who} on tokens per min (TPM): Limit {tpm}, Requested {tokens}."
        yield Reason(TokensLimited(told, remedy="Shorten the prompt, or ask for fewer tokens."), LONGEST_WAIT, True)
    elif tpm is not None and account.tokens + account.held + tokens > tpm + SLACK:
        used = account.tokens + account.held
        wait = (used + tokens - tpm) / account.tps
        told = f"Rate limit reached for {who} on tokens per min (TPM): Limit {tpm}, Used {used:.0f}, "
        yield Reason(TokensLimited(f"{told}Requested {tokens}.", remedy=_again(wait)), wait)
    if most is not None and account.running + 1.0 > most:
        told = f"Rate limit reached for {who} on requests at one time: Limit {most}, Running {account.running:.0f}."
        yield Reason(RateLimited(told, remedy="Please try again when one has ended."), BUSY_WAIT)


def _by_budget(account: Account, tokens: int) -> Iterator[Reason]:
    """By what is used up for the day or the month, or would be if all that is under way used what it may."""
    if account.per_day is None and account.per_month is None:
        return
    now, calendar = account.calendar.look(), account.calendar
    for budget, used, until, period in zip(
        (account.per_day, account.per_month),
        account.look(),
        (calendar.until, calendar.month_until),
        ("day", "month"),
        strict=True,
    ):
        if budget is None:
            continue
        told = f"for {account.who} on tokens per {period} (UTC): Limit {budget}, Used {used:.0f}, "
        if used + tokens > budget:
            error = QuotaExceeded(f"You exceeded the quota {told}Requested {tokens}.")
            yield Reason(error, until - now, True)
        elif used + account.held + tokens > budget:
            told += f"Reserved {account.held:.0f}, Requested {tokens}."
            yield Reason(TokensLimited(f"Quota reached {told}", remedy=_again(BUSY_WAIT)), BUSY_WAIT)


def _again(wait: float) -> str:
    return f"Please try again in {span(min(wait, LONGEST_WAIT)).decode()}."
