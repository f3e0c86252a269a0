"""How much each tenant and key may use: reserve before the engine is asked, settle with the truth afterwards.

    reservation = limiter.reserve(tenant, key, estimate(len(body), max_tokens))    # or RateLimited
    try: …
    finally: reservation.settle(tokens used, or None)

Exact over the workers of one host, to the request: every decision is taken under the ledger's lock, on what all of them
have counted. Gateways on several hosts share budgets only (budgets.py). No lock, task or await on one worker; it knows
nothing of HTTP, bodies or engines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from gateway.domain import ApiKey, Tenant
from gateway.serving.accounts import Account, Calendar
from gateway.serving.allowance import lines_of, refusal
from gateway.serving.ledger import Ledger

BYTES_PER_TOKEN = 4
UNBOUNDED_ANSWER = 256
"""Tokens that an answer without a bound is taken to have until it is known: most chat answers are shorter. A longer one
is counted in full in the end, so the next request pays for it."""


def estimate(size_of_body: int, max_tokens: int | None) -> int:
    """The tokens that a request may use: a token for every four bytes of its body, rounded up, and the answer's bound
    (times `n` where several are asked for), or 256 where it has none."""
    return -(-size_of_body // BYTES_PER_TOKEN) + (UNBOUNDED_ANSWER if max_tokens is None else max_tokens)


class Reservation:
    """One request's place within the limits. `tokens` were reserved; `lines` are its x-ratelimit headers as they go
    over the wire, each ended by CRLF. `settle` it once it is over."""

    __slots__ = ("_first", "_limiter", "_open", "_second", "lines", "tokens")

    def __init__(self, limiter: Limiter, first: Account, second: Account | None, tokens: int, lines: bytes) -> None:
        self._limiter, self._first, self._second = limiter, first, second
        self.tokens, self.lines = tokens, lines
        self._open = True

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """`lines` as names and values."""
        pairs = (line.partition(b": ") for line in self.lines.split(b"\r\n") if line)
        return [(name, value) for name, _, value in pairs]

    def settle(self, tokens: int | None) -> None:
        """Say what was used: prompt and answer. None gives everything back, the request too: the engine never answered
        or failed, or the client left before the first byte. Only the first call counts."""
        if not self._open:
            return
        self._open = False
        limiter = self._limiter
        shared = limiter.shared
        if shared:
            limiter.ledger.lock()
        try:
            self._first.settle(limiter.clock, self.tokens, tokens)
            if self._second is not None:
                self._second.settle(limiter.clock, self.tokens, tokens)
        finally:
            if shared:
                limiter.ledger.unlock()


class Limiter:
    """One worker's view of the limits. `active`: the accounts with budgets that were used since somebody cleared it."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.ledger, self.clock, self.shared = ledger, clock, ledger.shared
        self.calendar = Calendar(wall)
        self.active: set[Account] = set()
        self._tenants: dict[str, Account] = {}
        self._keys: dict[str, Account] = {}

    def reserve(self, tenant: Tenant, key: ApiKey, tokens: int) -> Reservation | None:
        """Room for one request of up to `tokens` tokens, within the tenant's limits and the key's: in both or in
        neither. None when neither has any. Raises `RateLimited`, or `QuotaExceeded` where waiting does not help."""
        limits, more = tenant.limits, key.limits
        if limits is not None:
            first, second = self.tenant(tenant.name), self.key(key.id) if more is not None else None
        elif more is not None:
            first, second, limits = self.key(key.id), None, more
        else:
            return None
        shared = self.shared
        if shared:
            self.ledger.lock()
        try:
            now = self.clock()
            if first.limits is not limits:
                first.limit(limits, now)
            if second is not None and more is not None and second.limits is not more:
                second.limit(more, now)
            if not (first.fits(now, tokens) and (second is None or second.fits(now, tokens))):
                raise refusal(first, second, now, tokens)
            first.take(now, tokens)
            if second is not None:
                second.take(now, tokens)
        finally:
            if shared:
                self.ledger.unlock()
        return Reservation(self, first, second, tokens, lines_of(first, second, 1.0, tokens))

    def tenant(self, name: str) -> Account:
        """The tenant's account."""
        account = self._tenants.get(name)
        if account is None:
            account = self._tenants[name] = self._open(f"tenant:{name}", "your organization")
        return account

    def key(self, key_id: str) -> Account:
        """The key's account."""
        account = self._keys.get(key_id)
        if account is None:
            account = self._keys[key_id] = self._open(f"key:{key_id}", "this API key")
        return account

    def keep(self, tenants: Collection[str], keys: Collection[str]) -> None:
        """Forget the accounts of all others. What is under way still settles, and what is unwritten is still active."""
        for accounts, names in ((self._tenants, tenants), (self._keys, keys)):
            for name in accounts.keys() - names:
                del accounts[name]

    def _open(self, name: str, who: str) -> Account:
        return Account(name, who, self.ledger, self.calendar, self.active)
