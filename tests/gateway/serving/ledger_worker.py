"""A process with a worker's limiter on the test's ledger. Told what to do a line at a time, answers a line at a time.

    python -m tests.gateway.serving.ledger_worker FD INDEX

`take N`: ask N times for one request of ten tokens of acme's, which stay; answers how many came in. `churn`: take and
settle for ever. `hold`: take the ledger's lock and keep it.
"""

from __future__ import annotations

import sys

from gateway.errors import RateLimited
from gateway.serving.ledger import Ledger
from gateway.serving.limits import Limiter
from tests.gateway.serving.limited import key, tenant

WHO = tenant(requests_per_minute=1000, tokens_per_minute=10_000, concurrent_requests=200)
BY = key(concurrent_requests=150)
NOW = 1000.0


def main() -> None:
    ledger = Ledger.attach(int(sys.argv[1]), int(sys.argv[2]))
    limiter = Limiter(ledger, clock=lambda: NOW)
    say("ready")
    for line in sys.stdin:
        order, _, number = line.partition(" ")
        if order == "take":
            say(sum(take(limiter) for _ in range(int(number))))
        elif order.strip() == "hold":
            ledger.lock()
            say("held")
        else:
            say("churning")
            while True:
                churn(limiter)


def say(what: object) -> None:
    print(what, flush=True)


def take(limiter: Limiter) -> bool:
    try:
        return limiter.reserve(WHO, BY, 10) is not None
    except RateLimited:
        return False


def churn(limiter: Limiter) -> None:
    try:
        reservation = limiter.reserve(WHO, BY, 10)
    except RateLimited:
        return
    assert reservation is not None
    reservation.settle(None)


if __name__ == "__main__":
    main()
