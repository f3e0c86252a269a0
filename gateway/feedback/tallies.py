"""What an experiment's units come to, kept current as inferences and feedback arrive, and read in milliseconds.

Writers append marks; `catch_up` takes a batch of them and works out anew, from the raw rows, the units that they
concern; `evidence` reads totals, which always are the exact sums over the units. Late, repeated and corrected feedback
is nothing special. What cannot be worked out is set aside in the same transaction, and holds up nobody else.
`docs/tallies.md` has the argument and the figures. It knows no statistics; SQL is the store's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from weakref import WeakKeyDictionary

from rapidfuzz.distance import Levenshtein

from gateway.domain import Metric
from gateway.errors import GatewayError, NotFound
from gateway.experiment import Evidence, Experiment
from gateway.feedback.segments import Words, segments
from gateway.store import experiments, marks, recipes, set_aside, totals
from gateway.store import tallies as rows
from gateway.store.automatic import Price
from gateway.store.changes import note
from gateway.store.database import Connection, Database

log = logging.getLogger("gateway.feedback.tallies")

LIMIT = 5000
"""Marks, or users of a build, in one transaction: a second or so, in which nobody waits but who works out as well."""

WAIT_SECONDS = 30.0
"""How long one waits for one's turn."""

READER_SECONDS = 5.0
"""How long who reads results waits at most for what has just come in."""

IDLE_SECONDS = 5.0
"""Between two looks for something to build."""

_turns: WeakKeyDictionary[Database, asyncio.Lock] = WeakKeyDictionary()
"""Whoever waits for the installation's turn holds a connection of the pool, which has few: so of each pool one waits
there, and the others here."""


class Tallies:
    """Of one installation. It holds nothing of its own, so it does not matter how many there are."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mine = _turns.setdefault(database, asyncio.Lock())

    async def catch_up(self, *, limit: int = LIMIT) -> int:
        """Work in up to `limit` marks in one transaction; how many units were worked out anew (0: no mark is left, nor
        anything else that is due).

        Any number of workers may call it at once: they take turns. Raises `Unavailable`.
        """
        return await self._catch_up(limit, None, WAIT_SECONDS)

    async def catch_up_with(self, experiment: Experiment, *, seconds: float = READER_SECONDS) -> bool:
        """Work in all that was written about one experiment before this call; whether it was done in about `seconds`,
        with no unit that could not be worked out.

        Raises `Unavailable` when PostgreSQL is away.
        """
        give_up = time.monotonic() + seconds
        while (left := give_up - time.monotonic()) > 0:
            try:
                done = not await self._catch_up(LIMIT, experiment.id, left)
                if done and not await totals.being_built(self._database, experiment.id):
                    return not await set_aside.count(self._database, experiment.id)
                if done:
                    await self._build_piece(experiment.id, LIMIT, left)
            except rows.Busy:
                return False
        return False

    async def evidence(self, experiment: Experiment, metrics: Mapping[str, Metric]) -> Evidence:
        """What is known of `metrics` (automatic ones may be among them), as of the last `catch_up`: a few reads of
        totals, whose number does not depend on the traffic. Raises `Unavailable`."""
        return await totals.evidence(self._database, experiment, metrics)

    async def begin_rebuild(self, experiment_id: str, *, actor: str | None = None) -> None:
        """See to it that all is worked out anew from the raw rows, by `run` of some worker. Who asked for it (`actor`)
        is in the audit log.

        Evidence stays what it is until all of it is there. Raises `NotFound`, `Unavailable`.
        """
        async with self._turn(WAIT_SECONDS) as connection:
            recipe = await _recipe(connection, experiment_id)
            await rows.begin_build(connection, recipe)
            await set_aside.hurry(connection, experiment_id)
            if actor is not None:
                about = {"alias": recipe.experiment.alias}
                tenant = recipe.experiment.tenant
                await note(connection, "experiment.rebuild", experiment_id, about, tenant=tenant, actor=actor)

    async def set_aside(self) -> int:
        """How many units could not be worked out, and wait to be tried again. Raises `Unavailable`."""
        return await set_aside.count(self._database)

    async def rebuild(self, experiment_id: str, *, limit: int = LIMIT) -> None:
        """As `begin_rebuild`, and stay until it is there: minutes for millions of rows."""
        await self.begin_rebuild(experiment_id)
        while await totals.being_built(self._database, experiment_id):
            await self._build_piece(experiment_id, limit, WAIT_SECONDS)

    async def build(self, *, limit: int = LIMIT) -> bool:
        """Work out the next `limit` users of an experiment that is being built, or clear away what was before it;
        whether there was anything to do. Raises `Unavailable`."""
        async with self._turn(WAIT_SECONDS) as connection:
            waiting = await rows.waiting(connection)
            if waiting is None:
                return await rows.sweep(connection, limit * 4)
        await self._build_piece(waiting, limit, WAIT_SECONDS)
        return True

    async def run(self, price: Price | None = None) -> None:
        """Tokens cost `price` (None: there is no `cost`) from now on.

        Build until cancelled: what a new version, another price or a request wants rebuilt.
        """
        begun = False
        while True:
            begun = begun or await self._try(partial(self._begin_outdated, price))
            more = begun and await self._try(self.build)
            await asyncio.sleep(0 if more else IDLE_SECONDS)

    async def _try(self, work: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await work()
        except GatewayError as error:
            log.warning("tallies wait", extra={"reason": error.message})
        except Exception as error:  # without its text: a database quotes the row
            log.error("tallies wait", extra={"error": type(error).__name__})
        return False

    async def _begin_outdated(self, price: Price | None) -> bool:
        """Running experiments that were worked out by another recipe than today's are built anew."""
        async with self._turn(WAIT_SECONDS) as connection:
            await recipes.set_price(connection, price)
            for experiment in await experiments.running(connection):
                await rows.state_of(connection, await recipes.recipe_of(connection, experiment))
        return True

    @asynccontextmanager
    async def _turn(self, seconds: float) -> AsyncIterator[Connection]:
        """A transaction in which nobody else works anything out. Raises `Busy` after waiting in vain."""
        give_up = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._mine.acquire()
        except TimeoutError as error:
            raise rows.Busy("Results are being worked out already.", remedy="Try again shortly.") from error
        try:
            async with self._database.transaction() as connection:
                await rows.enter(connection, wait_seconds=max(0.0, give_up - time.monotonic()))
                yield connection
        finally:
            self._mine.release()

    async def _catch_up(self, limit: int, experiment_id: str | None, wait_seconds: float) -> int:
        async with self._turn(wait_seconds) as connection:
            taken = await marks.take(connection, limit, experiment=experiment_id)
            if taken.count == 0:
                due = await set_aside.take(connection, experiment_id)
                if due:
                    await _work_in(connection, *due, again=True)
                return len(due[1]) if due else 0
            found = await marks.concerned(connection, taken)
            for concerned, units in found.items():
                await _work_in(connection, concerned, await set_aside.others(connection, concerned, units))
        return max(1, sum(map(len, found.values())))  # marks that concern nobody are work, too

    async def _build_piece(self, experiment_id: str, limit: int, wait_seconds: float) -> None:
        """The next users of a build, in one transaction; after the last, what was built is read."""
        async with self._turn(wait_seconds) as connection:
            recipe = await _recipe(connection, experiment_id)
            state = await rows.state_of(connection, recipe)
            if state.building is None:
                return
            users = await rows.next_users(connection, recipe.experiment, state.reached or "", limit)
            if users:
                units = await rows.units_of(connection, recipe.experiment, users)
                units = await set_aside.others(connection, experiment_id, units)
                await _work_in(connection, experiment_id, units, (state.building,))
            await rows.reached(connection, experiment_id, users[-1] if users else None)


async def _recipe(connection: Connection, experiment_id: str) -> recipes.Recipe:
    experiment = await experiments.find(connection, experiment_id)
    if experiment is None:
        raise NotFound("There is no such experiment.", param="experiment")
    return await recipes.recipe_of(connection, experiment)


async def _work_in(
    connection: Connection,
    experiment_id: str,
    units: Sequence[str],
    generations: Sequence[int] | None = None,
    *,
    again: bool = False,
) -> None:
    """Work these out, in all generations that live unless some are given; or set them aside, whatever the reason, and
    log that the first time. Nothing of what failed is left, and the transaction goes on."""
    if not units:
        return
    try:
        async with connection.transaction():  # a savepoint
            recipe = await _recipe(connection, experiment_id)
            state = await rows.state_of(connection, recipe)
            await _work_out(connection, recipe, units, generations or state.live)
    except Exception as error:
        await set_aside.put(connection, experiment_id, units)  # fails, too, where the database is away
        if not again:
            # Without the error's text: a database quotes the row, and a row may hold a prompt.
            told = {"experiment": experiment_id, "units": len(units), "error": type(error).__name__}
            log.error("units were set aside", extra=told)


async def _work_out(
    connection: Connection, recipe: recipes.Recipe, units: Sequence[str], generations: Sequence[int]
) -> None:
    distances = await _distances(connection, recipe, units) if generations else {}
    for generation in generations:
        outside = rows.FromOutside(await _segments(connection, recipe, units, generation), distances)
        await rows.work_out(connection, recipe, units, generation, outside)


async def _distances(connection: Connection, recipe: recipes.Recipe, units: Sequence[str]) -> dict[str, Decimal]:
    """How far each corrected answer was from its correction: the share of letters to be changed, from 0 to 1."""
    corrected = await rows.corrected(connection, recipe, units)

    def measured() -> dict[str, Decimal]:
        return {
            one.inference_id: Decimal(f"{Levenshtein.normalized_distance(one.answer, one.ideal):.6f}")
            for one in corrected
        }

    return await asyncio.to_thread(measured) if corrected else {}


async def _segments(
    connection: Connection, recipe: recipes.Recipe, units: Sequence[str], generation: int
) -> dict[str, tuple[tuple[str, ...], bool]]:
    """Of the first exposures that are not known yet, by inference; and whether the prompt is kept."""
    firsts = await rows.firsts(connection, recipe, units, generation)
    words = Words(await rows.words(connection, recipe.experiment.id))

    def told() -> dict[str, tuple[tuple[str, ...], bool]]:
        return {
            one.id: (
                segments(words, input_tokens=one.input_tokens, params=one.params, messages=one.messages),
                one.content,
            )
            for one in firsts
        }

    found = await asyncio.to_thread(told) if firsts else {}
    if words.new:
        await rows.add_words(connection, recipe.experiment.id, words.new)
    return found
