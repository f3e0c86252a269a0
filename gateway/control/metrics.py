"""Metrics: what feedback may be about, declared per tenant and never changed afterwards, since rows of it exist."""

from __future__ import annotations

import builtins

from gateway.control.names import check_name, require_tenant
from gateway.control.plans import check_ratio
from gateway.domain import Metric
from gateway.errors import Conflict
from gateway.store import metrics
from gateway.store.changes import change
from gateway.store.database import Database


class Metrics:
    """Declare and list."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def declare(self, metric: Metric, *, actor: str) -> Metric:
        """Declaring the same again is fine. Raises `Conflict` when the name means something else, `NotFound` for an
        unknown tenant, `InvalidRequest` for a ratio of what has no numbers.
        """
        check_name("a metric", metric.name)
        async with change(self._db, "metric.declare", metric.name, tenant=metric.tenant, actor=actor) as new:
            new.detail.update(kind=metric.kind.value, optimize=metric.optimize)
            await require_tenant(new.connection, metric.tenant)
            check_ratio(metric, {one.name: one for one in await metrics.of_tenant(new.connection, metric.tenant)})
            await metrics.insert(new.connection, metric)
            if await metrics.find(new.connection, metric.tenant, metric.name) != metric:
                raise Conflict(
                    f"The metric `{metric.name}` is declared otherwise.", remedy="Choose a new name.", param="name"
                )
        return metric

    async def list(self, tenant: str) -> builtins.list[Metric]:
        """By name. Raises `NotFound` for an unknown tenant."""
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            return await metrics.of_tenant(connection, tenant)
