"""The swap protocol, with workers that follow and report through the real feed and reporter."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from adapters.ref import AdapterRef
from gateway.control.aliases import pointing
from gateway.control.swap import Move
from gateway.domain import WorkerReport
from gateway.errors import AdapterRefused, Conflict, Unavailable
from gateway.store import audit, preparations, workers
from gateway.store.notices import WORKERS, listen
from gateway.store.snapshots import read_snapshot, read_version
from tests.gateway.control.rooms import ME, Rooms, Worker, only


async def prepared(rooms: Rooms) -> frozenset[AdapterRef]:
    return (await read_snapshot(rooms.db)).preparing


async def test_a_swap_returns_when_every_worker_holds_the_version_and_uses_the_picture(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(one), actor=ME)
    async with AsyncExitStack() as stack:
        crew = [Worker(f"w{n}", rooms.db, load_seconds=n * 0.2) for n in range(3)]
        for worker in crew:
            await stack.enter_async_context(worker.running())
        swapped = await rooms.aliases.promote("acme", "support", two, actor=ME)
        for worker in crew:
            assert worker.current.snapshot.aliases["acme", "support"] == swapped.alias
            assert str(two) in worker.resident
            assert worker.premature == []
    assert swapped.timings_ms["prepare"] >= 400  # the slowest worker's load
    assert swapped.timings_ms["total"] >= sum(swapped.timings_ms[p] for p in ("prepare", "commit", "acknowledge"))
    assert await prepared(rooms) == frozenset()


async def test_without_workers_nobody_is_waited_for(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    started = time.monotonic()
    await rooms.aliases.set("acme", "support", only(one), actor=ME)
    assert time.monotonic() - started < 3


async def test_a_version_that_a_worker_cannot_serve_changes_nothing(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    await rooms.aliases.set("acme", "support", only(None), actor=ME)
    good, bad = Worker("good", rooms.db), Worker("bad", rooms.db, refuse="its answers are NaN.")
    async with good.running(), bad.running():
        with pytest.raises(AdapterRefused, match=r"Worker bad cannot serve acme/support@1: its answers are NaN\."):
            await rooms.aliases.promote("acme", "support", one, actor=ME)
    assert (await rooms.aliases.get("acme", "support")).revision == 1
    assert await prepared(rooms) == frozenset()
    assert [entry.action for entry in await audit.entries(rooms.db, "acme", 2)] == ["swap.abandon", "swap.prepare"]


async def test_why_it_failed_before_does_not_refuse_a_new_attempt(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    async with Worker("w", rooms.db, refuse="the disk was full.", load_seconds=0.2).running() as worker:
        with pytest.raises(AdapterRefused):
            await rooms.aliases.set("acme", "support", only(one), actor=ME)
        worker.failed = {str(one): "the disk was full."}  # it still says so, as it sees the new wish
        worker.reporter.changed()
        await asyncio.sleep(0.2)
        worker.refuse = None
        swapped = await rooms.aliases.set("acme", "support", only(one), actor=ME)
        assert swapped.alias.revision == 1


async def test_a_worker_that_died_holds_a_swap_up_only_until_its_report_runs_out(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    await workers.report(rooms.db, WorkerReport("dead", 0, True, "boot"), ttl=1)
    async with Worker("alive", rooms.db).running():
        await rooms.aliases.set("acme", "support", only(one), actor=ME)
        assert [report.worker for report in await workers.live(rooms.db)] == ["alive"]


async def test_a_worker_that_never_gets_there_fails_the_prepare_and_is_named(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    rooms = replace(rooms, prepare_seconds=0.3)
    await workers.report(rooms.db, WorkerReport("stuck", 0, False, None), ttl=60)
    with pytest.raises(Unavailable, match=r"Worker stuck, which is not ready, did not get acme/support@1"):
        await rooms.aliases.set("acme", "support", only(one), actor=ME)
    assert await rooms.aliases.list("acme") == []
    assert await prepared(rooms) == frozenset()


async def test_a_worker_that_stays_behind_after_the_commit_is_not_hidden(rooms: Rooms) -> None:
    await rooms.ready()
    rooms = replace(rooms, acknowledge_seconds=0.3)
    await workers.report(rooms.db, WorkerReport("behind", 0, True, None), ttl=60)
    with pytest.raises(Unavailable) as raised:
        await rooms.aliases.set("acme", "support", only(None), actor=ME)
    assert raised.value.code == "committed_unconfirmed"
    assert "behind" in raised.value.message
    assert (await rooms.aliases.get("acme", "support")).revision == 1
    version = await read_version(rooms.db)
    await workers.report(rooms.db, WorkerReport("behind", version, True, None), ttl=60)
    again = await rooms.aliases.set("acme", "support", only(None), actor=ME)
    assert again.alias.revision == 1


async def test_of_two_swaps_of_one_alias_the_second_to_commit_is_refused(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(None), actor=ME)
    async with Worker("w", rooms.db, load_seconds=0.2).running():
        attempts = [rooms.aliases.promote("acme", "support", ref, actor=ME) for ref in (one, two)]
        done = await asyncio.gather(*attempts, return_exceptions=True)
    [won] = [swapped for swapped in done if not isinstance(swapped, BaseException)]
    [lost] = [error for error in done if isinstance(error, BaseException)]
    assert isinstance(lost, Conflict)
    assert await rooms.aliases.get("acme", "support") == won.alias
    assert won.alias.revision == 2
    assert await prepared(rooms) == frozenset()


async def test_swaps_of_two_aliases_to_one_version_do_not_disturb_each_other(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    async with Worker("w", rooms.db, load_seconds=0.1).running() as worker:
        names = ["a", "b", "c", "d"]
        await asyncio.gather(*(rooms.aliases.set("acme", name, only(one), actor=ME) for name in names))
        assert worker.premature == []
    assert [alias.name for alias in await rooms.aliases.list("acme")] == names


async def test_what_a_dead_swap_was_preparing_runs_out(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    async with rooms.db.transaction() as connection:
        await preparations.insert(connection, "dead", [one], seconds=0.5)
    version = await read_version(rooms.db)
    await preparations.sweep(rooms.db)
    assert await prepared(rooms) == {one}
    await asyncio.sleep(0.6)
    await asyncio.gather(*(preparations.sweep(rooms.db) for _ in range(3)))
    assert await prepared(rooms) == frozenset()
    assert await read_version(rooms.db) > version


async def test_a_swap_whose_preparation_ran_out_does_not_commit(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    move = Move(None, pointing(None, "acme", "support", only(one)), ME, "set")
    async with listen(rooms.db.url, WORKERS) as news:
        ready = await rooms.swaps.prepare(move, news)
    assert await prepared(rooms) == {one}
    async with rooms.db.transaction() as connection:
        await connection.execute("UPDATE preparations SET expires_at = now()")
    await preparations.sweep(rooms.db)
    with pytest.raises(Conflict, match="ran out"):
        await rooms.swaps.commit(ready)
    assert await rooms.aliases.list("acme") == []


async def test_a_version_being_prepared_cannot_be_retired(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    async with rooms.db.transaction() as connection:
        await preparations.insert(connection, "somebodys", [one], seconds=60)
    with pytest.raises(Conflict, match="being prepared"):
        await rooms.adapters.retire(one, actor=ME)


async def test_a_damaged_version_is_refused_before_any_worker_hears_of_it(rooms: Rooms) -> None:
    [one] = await rooms.ready(1)
    version = await read_version(rooms.db)
    weights = rooms.store.open(one).path / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(AdapterRefused):
        await rooms.aliases.set("acme", "support", only(one), actor=ME)
    assert await read_version(rooms.db) == version
