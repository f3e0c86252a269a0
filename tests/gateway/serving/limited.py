"""Tenants and keys with limits, and clocks that stand still until they are moved."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.domain import ApiKey, Limits, Tenant
from gateway.errors import RateLimited
from gateway.serving.ledger import Ledger
from gateway.serving.limits import Limiter, Reservation

ACME, KEY = "acme", "key-1"


def tenant(name: str = ACME, **limits: int) -> Tenant:
    return Tenant(name, limits=Limits(**limits) if limits else None)


def key(key_id: str = KEY, **limits: int) -> ApiKey:
    return ApiKey(key_id, ACME, frozenset(), None, Limits(**limits) if limits else None)


class Clock:
    """Both clocks: the monotonic one, and the wall's, which begins on 2026-03-30 at noon."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = datetime(2026, 3, 30, 12, tzinfo=UTC).timestamp()

    def read(self) -> float:
        return self.now

    def read_wall(self) -> float:
        return self.wall

    def move(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


class Gate:
    """A limiter of one worker, with its clock."""

    def __init__(self, ledger: Ledger | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.limiter = Limiter(ledger or Ledger.create(), clock=self.clock.read, wall=self.clock.read_wall)

    def ask(self, who: Tenant, by: ApiKey | None = None, tokens: int = 1) -> Reservation:
        """A reservation that must be there."""
        reservation = self.limiter.reserve(who, by or key(), tokens)
        assert reservation is not None
        return reservation

    def refused(self, who: Tenant, by: ApiKey | None = None, tokens: int = 1) -> RateLimited:
        """The error of a reservation that must not be."""
        try:
            self.limiter.reserve(who, by or key(), tokens)
        except RateLimited as error:
            return error
        raise AssertionError("it was let in")

    def admitted(self, who: Tenant, by: ApiKey | None = None, tokens: int = 1, *, most: int = 10_000) -> int:
        """How many come in now; they stay."""
        for number in range(most):
            try:
                self.limiter.reserve(who, by or key(), tokens)
            except RateLimited:
                return number
        return most


def headers(of: RateLimited | Reservation) -> dict[str, Any]:
    found = of.headers() if isinstance(of, RateLimited) else of.headers
    return {name.decode(): value.decode() for name, value in found}
