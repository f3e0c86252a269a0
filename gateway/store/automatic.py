"""The metrics that nobody has to declare: what every answer shows by itself, and what comes from feedback of any kind.

It only names them. They are worked out per unit in `store/figures.py`, n being the requests that were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from gateway.domain import Metric, MetricKind

_SHARES = (
    ("error_rate", "min", "share of requests that failed, the client's own errors and disconnections not counted"),
    ("refusal_rate", "min", "share of stored answers that open like a refusal"),
    ("regeneration_rate", "min", "share of answers after which the same user asked the same again within ten minutes"),
    ("feedback_rate", "max", "share of answers that were judged"),
    ("thumbs_up_rate", "max", "share of good ones among all boolean judgements"),
)
_MEANS = (
    ("ttft", "min", "ms", "time to the first token"),
    ("latency", "min", "ms", "time to the end of the answer, of those that ended well"),
    ("output_tokens", "min", "tokens", "length of the answer"),
    ("edit_distance", "min", "", "how far an answer was from its correction, from 0 to 1"),
)
COST = "cost"

NAMES = frozenset((*(name for name, *_ in _SHARES), *(name for name, *_ in _MEANS), COST))
"""Of all of them. A metric that a tenant declares under such a name is worked out instead."""


@dataclass(frozen=True, slots=True)
class Price:
    """Of one token that is read and of one that is written, in `currency`."""

    input: Decimal
    output: Decimal
    currency: str

    @classmethod
    def per_million(cls, input: Decimal | None, output: Decimal | None, currency: str) -> Price | None:  # noqa: A002 — as settings call it
        """From the prices of a million tokens; None if one is unknown."""
        return None if input is None or output is None else cls(input / 1_000_000, output / 1_000_000, currency)


def automatic(tenant: str, *, currency: str | None = None) -> Mapping[str, Metric]:
    """By name. Shares are boolean metrics, the others floats; without a currency (no price is set) there is no cost."""
    found = {
        name: Metric(tenant, name, MetricKind.BOOLEAN, optimize, description) for name, optimize, description in _SHARES
    }
    for name, optimize, unit, description in _MEANS:
        found[name] = Metric(tenant, name, MetricKind.FLOAT, optimize, description, unit)
    if currency is not None:
        found[COST] = Metric(tenant, COST, MetricKind.FLOAT, "min", "price of a request's tokens", currency)
    return found
