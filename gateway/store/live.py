"""SQL for live traffic: what came in lately, by step of time and by alias and variant.

One pass over the tenant's newest rows, found by the index (tenant, created_at, id): the cost is that of the rows in the
window, whatever else the table holds. All figures of a step can be added to another's, the times to the first token
too, which are counted by classes: so whoever calls may keep the steps that are over (console/recent.py does).
It knows no charts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from gateway.store.database import Database

CLASSES = 8
"""Of times to the first token, for each factor of e: a class is 13 % wide, so its middle is within 7 % of what it
holds."""

# A table that has grown since its statistics were made would be read by a worse way (see exports.py); and parallel
# workers, sorts and compilation would take from the traffic what a look at it can do without.
_QUIETLY = tuple(
    f"SET LOCAL {setting}"
    for setting in ("enable_bitmapscan = off", "enable_sort = off", "max_parallel_workers_per_gather = 0", "jit = off")
)
_TRAFFIC = """
SELECT date_bin($4::interval, created_at, $2::timestamptz) AS at, alias, variant,
       floor($5 * ln(CASE WHEN ttft_ms < 0.01 THEN 0.01 ELSE ttft_ms END))::integer AS class, count(*) AS requests,
       count(*) FILTER (WHERE outcome NOT IN ('ok', 'client_error', 'disconnected')) AS errors,
       count(*) FILTER (WHERE outcome = 'client_error') AS refused,
       coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
       coalesce(sum(output_tokens), 0)::bigint AS output_tokens
FROM inferences WHERE tenant = $1 AND created_at >= $2 AND created_at < $3
GROUP BY 1, 2, 3, 4
"""


@dataclass(slots=True)
class Traffic:
    """Requests to one variant of an alias, over some time. `errors` are the engine's, `refused` the client's own;
    tokens are sums; `ttft` counts the streamed answers by the class of their time to the first token."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    ttft: Counter[int] = field(default_factory=Counter)

    def add(self, other: Traffic) -> None:
        """Take in another time's."""
        self.requests += other.requests
        self.errors += other.errors
        self.refused += other.refused
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.ttft.update(other.ttft)

    def ttft_ms(self, share: float) -> float | None:
        """The time to the first token that `share` of the streamed answers did not exceed, in milliseconds, within 7 %.
        None where nothing was streamed."""
        wanted, reached = share * self.ttft.total(), 0
        for one in sorted(self.ttft):
            reached += self.ttft[one]
            if reached >= wanted:
                return math.exp((one + 0.5) / CLASSES)
        return None


Step = Mapping[tuple[str, str], Traffic]
"""By alias and variant."""


async def traffic(
    database: Database, tenant: str, *, since: datetime, until: datetime, step: timedelta
) -> dict[datetime, dict[tuple[str, str], Traffic]]:
    """By the moment at which a step began, counted from `since`; steps without a request are missing.

    A request belongs to when it began, and is known only when it is over: the newest steps still grow.
    """
    async with database.transaction(picture=True) as connection:
        for setting in _QUIETLY:
            await connection.execute(setting)
        rows = await connection.fetch(_TRAFFIC, tenant, since, until, step, CLASSES)
    return _steps(rows)


def _steps(rows: Sequence[Any]) -> dict[datetime, dict[tuple[str, str], Traffic]]:
    found: dict[datetime, dict[tuple[str, str], Traffic]] = {}
    for row in rows:
        one = found.setdefault(row["at"], {}).setdefault((row["alias"], row["variant"]), Traffic())
        streamed = Counter({row["class"]: row["requests"]} if row["class"] is not None else ())
        numbers = (row["requests"], row["errors"], row["refused"], row["input_tokens"], row["output_tokens"])
        one.add(Traffic(*numbers, streamed))
    return found
