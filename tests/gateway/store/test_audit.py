"""The audit log as it is read: filters and pages, a tenant's own."""

from __future__ import annotations

from typing import Any

from gateway.store.audit import Wanted, entries
from gateway.store.changes import change
from gateway.store.database import Database


async def subjects(db: Database, tenant: str | None, *, before: int | None = None, **wanted: Any) -> list[str]:
    return [one.subject for one in await entries(db, tenant, 100, wanted=Wanted(**wanted), before=before)]


async def test_each_filter_keeps_what_fits_and_pages_follow_each_other(db: Database) -> None:
    for actor, action, subject, tenant in (
        ("operator", "tenant.create", "acme", "acme"),
        ("key:1", "alias.set", "support", "acme"),
        ("rule", "experiment.roll_back", "exp-1", "acme"),
        ("key:2", "alias.set", "support", "rival"),
        ("operator", "aliases", "odd", None),
    ):
        async with change(db, action, subject, tenant=tenant, actor=actor):
            pass
    assert await subjects(db, "acme") == ["exp-1", "support", "acme"]
    assert await subjects(db, None) == ["odd", "support", "exp-1", "support", "acme"]
    assert await subjects(db, "acme", action="alias.set") == ["support"]
    assert await subjects(db, "acme", action="experiment") == ["exp-1"]
    assert await subjects(db, None, action="alias") == ["support", "support"]
    assert await subjects(db, None, actor="operator") == ["odd", "acme"]
    assert await subjects(db, None, subject="support", actor="key:2") == ["support"]
    assert await subjects(db, "acme", subject="odd") == []
    first, second, *_ = await entries(db, None, 2)
    assert await subjects(db, None, before=second.id) == ["exp-1", "support", "acme"]
    assert first.id > second.id
