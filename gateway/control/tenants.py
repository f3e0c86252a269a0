"""Tenants: who may use the installation, and what each allows."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from gateway.control.limits import UNCHANGED, LimitChanges, amended, check_weight
from gateway.control.names import check_name, unknown
from gateway.domain import Metric, MetricKind, Tenant
from gateway.errors import Conflict
from gateway.store import metrics, tenants
from gateway.store.changes import change
from gateway.store.database import Database

FIRST_METRICS = (
    ("thumbs", MetricKind.BOOLEAN, "whether the answer was good"),
    ("comment", MetricKind.COMMENT, "what somebody says about the answer"),
    ("demonstration", MetricKind.DEMONSTRATION, "the ideal answer"),
)
"""Declared for each new tenant, so that feedback works from the first request on."""


class Tenants:
    """Create, change and list them. A new tenant starts with the metrics `thumbs`, `comment` and `demonstration`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self,
        name: str,
        *,
        store_content: bool = False,
        allow_pinning: bool = True,
        limits: LimitChanges | None = None,
        weight: float = 1.0,
        actor: str,
    ) -> Tenant:
        """Raises `Conflict` when the name is taken, `InvalidRequest` for a limit or weight out of range."""
        check_name("a tenant", name)
        check_weight(weight)
        tenant = Tenant(name, store_content, allow_pinning, amended(None, limits), weight)
        async with change(self._db, "tenant.create", name, tenant=name, actor=actor) as new:
            new.detail.update(
                {field: value for field, value in asdict(tenant).items() if field not in ("name", "evaluates")}
            )
            if not await tenants.insert(new.connection, tenant):
                raise Conflict(f"There is a tenant `{name}` already.", remedy="Choose another name.", param="name")
            for metric, kind, description in FIRST_METRICS:
                await metrics.insert(new.connection, Metric(name, metric, kind, description=description))
        return tenant

    async def update(
        self,
        name: str,
        *,
        store_content: bool | None = None,
        allow_pinning: bool | None = None,
        limits: LimitChanges | None = UNCHANGED,
        weight: float | None = None,
        actor: str,
    ) -> Tenant:
        """Change what is given; of `limits` those named, and all of them are removed by None.

        Raises `NotFound`, and `InvalidRequest` for a limit or weight out of range.
        """
        given: dict[str, Any] = {"store_content": store_content, "allow_pinning": allow_pinning, "weight": weight}
        changes = {field: value for field, value in given.items() if value is not None}
        if weight is not None:
            check_weight(weight)
        async with change(self._db, "tenant.update", name, tenant=name, actor=actor) as new:
            new.detail.update(changes)
            if limits != UNCHANGED:
                new.detail["limits"] = dict(limits) if limits is not None else None
            tenant = await tenants.find(new.connection, name)
            if tenant is None:
                raise unknown("tenant", name, param="tenant")
            tenant = replace(tenant, **changes, limits=amended(tenant.limits, limits))
            await tenants.update(new.connection, tenant)
        return tenant

    async def list(self) -> list[Tenant]:
        """All of them, by name."""
        async with self._db.transaction(picture=True) as connection:
            return await tenants.every(connection)
