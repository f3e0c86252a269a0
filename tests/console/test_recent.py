"""Live traffic in memory: what is over is read once, the newest steps again and again but not too often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from gateway.console.recent import DAY, FRESH_SECONDS, HOUR, Recent, View
from gateway.console.traffic import plots, totals
from gateway.store.database import Database
from gateway.store.inferences import write_inferences
from gateway.store.live import Traffic
from tests.gateway.feedback.stories import BEGAN, begin

MINUTE = timedelta(minutes=1)


class Counted:
    """A database that counts its transactions."""

    def __init__(self, db: Database) -> None:
        self.db, self.count = db, 0

    @asynccontextmanager
    async def transaction(self, *, picture: bool = False) -> AsyncIterator[Any]:
        self.count += 1
        async with self.db.transaction(picture=picture) as connection:
            yield connection


class Time:
    """A wall clock and a stopwatch that go on together, when they are told to."""

    def __init__(self) -> None:
        self.now, self.seconds = BEGAN + timedelta(hours=24, seconds=30), 0.0

    def on(self, seconds: float) -> None:
        self.now, self.seconds = self.now + timedelta(seconds=seconds), self.seconds + seconds

    def recent(self, db: Any, **more: Any) -> Recent:
        return Recent(db, now=lambda: self.now, clock=lambda: self.seconds, **more)


def counts(view: View) -> list[int]:
    return [sum(one.requests for one in step.values()) for step in view.steps]


@pytest.mark.long
async def test_the_newest_steps_grow_and_older_ones_are_read_once(db: Database) -> None:
    story, time, counted = await begin(db), Time(), Counted(db)
    recent = time.recent(counted)

    async def wrote(ago: timedelta) -> None:
        row = story.inference("ann", "base")
        row.created_at = time.now - ago
        await write_inferences(db, [row])

    for minutes in (0.1, 1, 5, 40, 59, 61):
        await wrote(minutes * MINUTE)
    view = await recent.read("acme", HOUR)
    assert (len(view.at), view.missing, view.at[-1] + 30 * timedelta(seconds=1)) == (60, 0, time.now)
    assert [place for place, count in enumerate(counts(view)) if count] == [0, 19, 54, 58, 59]
    assert totals(view, HOUR)[0].traffic.requests == 5
    asked = counted.count
    assert await recent.read("acme", HOUR) is view and counted.count == asked, "two looks at once are one"
    await wrote(3 * MINUTE)
    await wrote(30 * MINUTE)
    time.on(FRESH_SECONDS)
    again = await recent.read("acme", HOUR)
    assert sum(counts(again)) == 6 and counted.count == asked + 1, "what is older than ten minutes is not read again"
    time.on(20 * 60)
    later = await recent.read("acme", HOUR)
    assert (counted.count - asked, later.missing) == (3, 0), "the newest, and once what became old"
    assert sum(counts(later)) == 6 - 2, "two are too old by now"
    assert sum(counts(await recent.read("globex", HOUR))) == 0


async def test_older_steps_that_take_too_long_come_with_the_next_looks(db: Database) -> None:
    story, time = await begin(db), Time()
    for hours in range(24):
        row = story.inference("ann", "base")
        row.created_at = BEGAN + timedelta(hours=hours, minutes=20)
        await write_inferences(db, [row])

    class Slow(Counted):
        @asynccontextmanager
        async def transaction(self, *, picture: bool = False) -> AsyncIterator[Any]:
            time.on(1)
            async with self.db.transaction(picture=picture) as connection:
                yield connection

    recent, seen = time.recent(Slow(db), budget=4), list[int]()
    for _ in range(20):
        view = await recent.read("acme", DAY)
        seen.append(sum(counts(view)))
        if not view.missing:
            break
        time.on(FRESH_SECONDS)
        assert await recent.read("acme", DAY) is view, "a slow look is not repeated for twenty times what it took"
        time.on(20)
    assert seen == sorted(seen) and 3 <= len(seen) <= 8
    assert seen[-1] >= 23, seen


async def test_a_plot_has_a_line_for_each_variant_and_one_for_the_rest(db: Database) -> None:
    story, time = await begin(db), Time()
    for n, variant in enumerate("abcdefg"):
        row = story.inference("ann", variant, outcome="engine_error" if n == 1 else "ok", ttft_ms=None)
        row.created_at = time.now - 2 * MINUTE
        await write_inferences(db, [row])
    view = await time.recent(db).read("acme", HOUR)
    rate, ttft, tokens, errors = plots(view, HOUR, "support")
    assert [line.name for line in rate.plot.lines] == ["a", "b", "c", "d", "others"]
    assert [line.mid[-3] for line in rate.plot.lines] == [1, 1, 1, 1, 3]
    assert (len(rate.plot.x), rate.drawable, ttft.drawable, tokens.drawable) == (60, True, False, True)
    assert [line.mid[-3] for line in errors.plot.lines] == [0, 1, 0, 0, 0]


@pytest.mark.long
def test_rows_and_lines_come_in_the_order_of_names_however_the_database_came_upon_them() -> None:
    now = Time().now
    ways = [{("support", variant): Traffic(requests=1) for variant in order} for order in ("abcdef", "fdbeca")]
    views = [View([now - MINUTE], [step], 0, now) for step in ways]
    rows = [[row.variant for row in totals(view, HOUR)] for view in views]
    lines = [[(line.name, line.colour) for line in plots(view, HOUR, "support")[0].plot.lines] for view in views]
    assert rows == [list("abcdef")] * 2 and lines[0] == lines[1]
