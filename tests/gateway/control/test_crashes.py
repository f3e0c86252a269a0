"""A promotion that ends at any of its steps, by cancellation or by `kill -9`, leaves the old state or the new one.

A step is a suspension of the promotion's coroutine: each read and write on a socket, each thread waited for.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.ref import AdapterRef
from adapters.store import AdapterStore
from gateway.domain import Alias
from gateway.store.database import Database
from gateway.store.snapshots import read_snapshot
from tests.gateway.control.rooms import ME, Rooms, Worker, only

pytestmark = pytest.mark.processes


class Interrupted:
    """Awaits `coroutine`, and calls `strike` at its suspension number `at` (from 1)."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: int, strike: Callable[[], object]) -> None:
        self._steps = coroutine.__await__()
        self._at = at
        self._strike = strike

    def __await__(self) -> Generator[Any, Any, Any]:
        thrown: BaseException | None = None
        for step in itertools.count(1):
            try:
                waiting = self._steps.send(None) if thrown is None else self._steps.throw(thrown)
            except StopIteration as done:
                return done.value
            thrown = None
            if step == self._at:
                self._strike()
            try:
                yield waiting
            except BaseException as error:
                thrown = error
        return None


async def _promote(rooms: Rooms, ref: AdapterRef, at: int, strike: Callable[[], object]) -> None:
    await Interrupted(rooms.aliases.promote("acme", "support", ref, actor=ME), at, strike)


async def _consistent(rooms: Rooms, before: Alias, ref: AdapterRef) -> bool:
    """Check that the whole state is `before` or its promotion to `ref`; true for the latter."""
    snapshot = await read_snapshot(rooms.db)
    alias = snapshot.aliases["acme", "support"]
    async with rooms.db.transaction() as connection:
        history = await connection.fetchval("SELECT max(revision) FROM alias_revisions")
        promotions = await connection.fetchval("SELECT count(*) FROM audit WHERE action = 'alias.promote'")
    assert history == alias.revision == 1 + promotions
    if alias == before:
        return False
    assert (alias.revision, alias.variants) == (before.revision + 1, tuple(only(ref)))
    assert alias.previous == before.variants
    return True


async def test_a_promotion_cancelled_at_any_step_is_old_or_new_and_leaves_no_preparation(rooms: Rooms) -> None:
    one, two = await rooms.ready(1, 2)
    await rooms.aliases.set("acme", "support", only(one), actor=ME)
    moved = 0
    async with Worker("w", rooms.db).running() as worker:
        for at in itertools.count(1):
            before = await rooms.aliases.get("acme", "support")
            ref = two if before.variants == tuple(only(one)) else one
            async with asyncio.TaskGroup() as group:
                tasks: list[asyncio.Task[None]] = []
                tasks.append(group.create_task(_promote(rooms, ref, at, lambda tasks=tasks: tasks[0].cancel())))
            moved += await _consistent(rooms, before, ref)
            assert (await read_snapshot(rooms.db)).preparing == frozenset(), at
            assert worker.premature == []
            if not tasks[0].cancelled():
                break
    assert at > 20
    assert moved > 1  # some were cancelled after the commit


def test_a_promotion_killed_at_any_step_is_old_or_new(database_url: str, tmp_path: Path) -> None:
    store = AdapterStore(str(tmp_path / "store"), cache=tmp_path / "cache")
    in_rooms = partial(_in_rooms, database_url, store, tmp_path)

    async def set_up(rooms: Rooms) -> list[AdapterRef]:
        refs = await rooms.ready(1, 2)
        await rooms.aliases.set("acme", "support", only(refs[0]), actor=ME)
        return refs

    one, two = in_rooms(set_up)
    moved = steps = 0
    status = -1
    while status != 0:
        steps += 1
        before = in_rooms(lambda rooms: rooms.aliases.get("acme", "support"))
        ref = two if before.variants == tuple(only(one)) else one
        status = _in_child(partial(in_rooms, partial(_promote, ref=ref, at=steps, strike=_die)))
        moved += in_rooms(partial(_consistent, before=before, ref=ref))
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    assert steps > 20
    assert moved > 1


def _in_rooms(url: str, store: AdapterStore, place: Path, work: Callable[[Rooms], Coroutine[Any, Any, Any]]) -> Any:
    """The result of `work` on rooms of its own, connected and closed again."""

    async def run() -> Any:
        db = await Database.connect(url)
        try:
            return await work(Rooms(db, store, place))
        finally:
            await db.close()

    return asyncio.run(run())


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _in_child(work: Callable[[], object]) -> int:
    """Run `work` in a fork of this process; the status that it left with."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]
