"""Each operation of the control plane: what it changes, that it is audited, that it makes a new snapshot version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from adapters.ref import AdapterRef
from gateway.domain import Metric, MetricKind, Scope, Tenant
from gateway.errors import Conflict, GatewayError, InvalidRequest, NotFound
from gateway.identity import hash_key
from gateway.store import audit
from gateway.store.notices import SNAPSHOT, listen
from gateway.store.snapshots import read_snapshot, read_version
from tests.gateway.control.rooms import ME, Rooms, only


async def test_every_change_bumps_the_version_by_one_and_is_audited_and_announced(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    await rooms.aliases.set("acme", "support", only(None, "base"), actor=ME)
    key = await rooms.keys.create("acme", [Scope.INFERENCE], actor=ME)
    changes: dict[str, Callable[[], Awaitable[object]]] = {
        "tenant.create": lambda: rooms.tenants.create("globex", actor=ME),
        "tenant.update": lambda: rooms.tenants.update("acme", store_content=True, actor=ME),
        "key.create": lambda: rooms.keys.create("acme", [Scope.ADMIN], actor=ME),
        "key.limit": lambda: rooms.keys.limit("acme", key.id, {"tokens_per_day": 5}, actor=ME),
        "key.revoke": lambda: rooms.keys.revoke("acme", key.id, actor=ME),
        "metric.declare": lambda: rooms.metrics.declare(Metric("acme", "solved", MetricKind.BOOLEAN), actor=ME),
        "adapter.register": lambda: rooms.adapters.register(rooms.publish(seed=2), actor=ME),
        "alias.set": lambda: rooms.aliases.set("acme", "empty", only(None), actor=ME),
        "adapter.retire": lambda: rooms.adapters.retire(AdapterRef("acme", "support", 2), actor=ME),
    }
    for action, make in changes.items():
        before = await read_version(rooms.db)
        async with listen(rooms.db.url, SNAPSHOT) as listener:
            await make()
            async with asyncio.timeout(2):
                await listener.wait(60)
        assert await read_version(rooms.db) == before + 1, action
        [entry] = await audit.entries(rooms.db, None, 1)
        assert (entry.action, entry.actor) == (action, ME)
    assert one


async def test_a_refused_change_leaves_no_trace(rooms: Rooms) -> None:
    await rooms.ready()
    before, entries = await read_version(rooms.db), await audit.entries(rooms.db, None, 100)
    with pytest.raises(Conflict):
        await rooms.tenants.create("acme", actor=ME)
    with pytest.raises(NotFound):
        await rooms.keys.revoke("acme", "key-0000", actor=ME)
    with pytest.raises(NotFound):
        await rooms.aliases.set("acme", "support", only(AdapterRef("acme", "support", 1)), actor=ME)
    assert await read_version(rooms.db) == before
    assert await audit.entries(rooms.db, None, 100) == entries


async def test_a_new_tenant_can_be_given_feedback_at_once(rooms: Rooms) -> None:
    await rooms.tenants.create("acme", actor=ME)
    kinds = {metric.name: metric.kind for metric in await rooms.metrics.list("acme")}
    assert kinds == {
        "thumbs": MetricKind.BOOLEAN,
        "comment": MetricKind.COMMENT,
        "demonstration": MetricKind.DEMONSTRATION,
    }


async def test_a_tenants_settings_change_only_where_given(rooms: Rooms) -> None:
    await rooms.tenants.create("acme", allow_pinning=False, actor=ME)
    assert await rooms.tenants.update("acme", store_content=True, actor=ME) == Tenant("acme", True, False)
    assert await rooms.tenants.list() == [Tenant("acme", True, False)]


@pytest.mark.parametrize("name", ["", "Acme", "a/b", "a@1", "a:b", "..", "a..b", "-a", "a" * 65, "a\n", "ü"])
async def test_a_name_that_would_have_to_be_quoted_is_refused_everywhere(rooms: Rooms, name: str) -> None:
    await rooms.ready()
    for attempt in (
        rooms.tenants.create(name, actor=ME),
        rooms.metrics.declare(Metric("acme", name, MetricKind.FLOAT), actor=ME),
        rooms.aliases.set("acme", name, only(None), actor=ME),
        rooms.aliases.set("acme", "fine", only(None, name), actor=ME),
        rooms.adapters.upload("acme", name, rooms.directory / "none.tar", actor=ME),
    ):
        with pytest.raises(InvalidRequest):
            await attempt


async def test_base_is_no_alias_and_no_adapter(rooms: Rooms) -> None:
    await rooms.ready()
    with pytest.raises(InvalidRequest):
        await rooms.aliases.set("acme", "base", only(None), actor=ME)
    with pytest.raises(InvalidRequest):
        await rooms.adapters.register(rooms.publish(name="base"), actor=ME)


async def test_a_key_is_shown_once_and_only_its_hash_is_kept(rooms: Rooms) -> None:
    await rooms.ready()
    soon = datetime.now(UTC) + timedelta(hours=1)
    made = await rooms.keys.create("acme", [Scope.INFERENCE, Scope.FEEDBACK], expires_at=soon, actor=ME)
    assert made.key.startswith(made.prefix)
    assert made.key not in repr(made)
    async with rooms.db.transaction() as connection:
        stored = await connection.fetchval("SELECT row_to_json(k)::text FROM api_keys k")
        told = await connection.fetchval("SELECT json_agg(a)::text FROM audit a")
    assert made.key not in stored
    assert made.key not in told
    known = (await read_snapshot(rooms.db)).keys[hash_key(made.key)]
    assert (known.tenant, known.scopes, known.expires_at) == ("acme", {Scope.INFERENCE, Scope.FEEDBACK}, soon)


async def test_a_revoked_and_an_expired_key_are_gone_from_the_picture_but_listed(rooms: Rooms) -> None:
    await rooms.ready()
    past = datetime.now(UTC) - timedelta(seconds=1)
    await rooms.keys.create("acme", [Scope.INFERENCE], expires_at=past, actor=ME)
    made = await rooms.keys.create("acme", [Scope.INFERENCE], actor=ME)
    await rooms.keys.revoke("acme", made.id, actor=ME)
    await rooms.keys.revoke("acme", made.id, actor=ME)
    assert (await read_snapshot(rooms.db)).keys == {}
    expired, revoked = await rooms.keys.list("acme")
    assert expired.revoked_at is None
    assert revoked.id == made.id
    assert revoked.revoked_at is not None


async def test_what_is_another_tenants_looks_as_if_it_did_not_exist(rooms: Rooms) -> None:
    [theirs] = await rooms.ready(1, tenant="globex")
    await rooms.ready(tenant="acme")
    key = await rooms.keys.create("globex", [Scope.INFERENCE], actor=ME)
    await rooms.aliases.set("globex", "support", only(theirs), actor=ME)
    unknown = AdapterRef("nobody", "support", 1)
    pairs: list[tuple[Awaitable[object], Awaitable[object], str, str]] = [
        (
            rooms.keys.revoke("acme", key.id, actor=ME),
            rooms.keys.revoke("acme", "key-ffffffffffffffff", actor=ME),
            key.id,
            "key-ffffffffffffffff",
        ),
        (
            rooms.aliases.set("acme", "mine", only(theirs), actor=ME),
            rooms.aliases.set("acme", "mine", only(unknown), actor=ME),
            str(theirs),
            str(unknown),
        ),
        (rooms.aliases.get("acme", "support"), rooms.aliases.get("acme", "nothing"), "support", "nothing"),
    ]
    for foreign, absent, foreign_name, absent_name in pairs:
        assert await _said(foreign) == (await _said(absent)).replace(absent_name.encode(), foreign_name.encode())


async def _said(attempt: Awaitable[object]) -> bytes:
    with pytest.raises(NotFound) as raised:
        await attempt
    return raised.value.body()


async def test_operations_for_an_unknown_tenant_are_not_found(rooms: Rooms) -> None:
    attempts: list[Awaitable[object]] = [
        rooms.tenants.update("nobody", store_content=True, actor=ME),
        rooms.keys.create("nobody", [Scope.ADMIN], actor=ME),
        rooms.keys.list("nobody"),
        rooms.metrics.declare(Metric("nobody", "solved", MetricKind.FLOAT), actor=ME),
        rooms.metrics.list("nobody"),
        rooms.adapters.list("nobody"),
        rooms.adapters.register(rooms.publish("nobody"), actor=ME),
        rooms.aliases.set("nobody", "support", only(None), actor=ME),
        rooms.aliases.list("nobody"),
        rooms.experiments.list("nobody"),
    ]
    for attempt in attempts:
        assert b"The tenant `nobody` does not exist" in await _said(attempt)


async def test_a_metric_keeps_its_meaning(rooms: Rooms) -> None:
    await rooms.ready()
    solved = Metric("acme", "solved", MetricKind.FLOAT, "min", "minutes")
    await rooms.metrics.declare(solved, actor=ME)
    assert await rooms.metrics.declare(solved, actor=ME) == solved
    with pytest.raises(Conflict):
        await rooms.metrics.declare(Metric("acme", "solved", MetricKind.BOOLEAN), actor=ME)
    assert solved in await rooms.metrics.list("acme")


async def test_expected_errors_are_never_500s(rooms: Rooms) -> None:
    for attempt in (
        rooms.experiments.get("exp-none"),
        rooms.experiments.stop("exp-none", reason="x", actor=ME),
        rooms.adapters.retire(AdapterRef("acme", "none", 1), actor=ME),
        rooms.aliases.promote("acme", "none", AdapterRef("acme", "none", 1), actor=ME),
    ):
        with pytest.raises(GatewayError) as raised:
            await attempt
        assert raised.value.status == 404
