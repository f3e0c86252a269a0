"""Units and their totals in the database: which are to be worked out, what is needed of them from outside, the write.

Whoever works anything out does so under one lock of the whole installation, so there is never a second one at it, and
a transaction that is cut off has done nothing. What an experiment comes to is a *generation*: all units worked out by
one recipe. Another recipe (a price, a metric of the tenant's own) or a rebuild makes a new one beside it, piece by
piece, and the old one is read until the new one is whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache

import asyncpg

from gateway.domain import Unit
from gateway.errors import Unavailable
from gateway.experiment import Experiment
from gateway.store.database import STATEMENT_SECONDS, Connection
from gateway.store.figures import ANALYSED, EXPOSURES, FOUND, statement
from gateway.store.marks import SECONDS
from gateway.store.recipes import Recipe

LOCK = 7_806_110_145_002
MOST_LETTERS = 65_536
"""A longer prompt's language is not told; of an answer and its correction only the first are compared, see below."""
COMPARED = 4_000

# Planned for the units at hand; never a whole table, nor thousands of rows against thousands (`figures.py`); and the
# compilation of such a plan would take longer than the plan.
# Between two statements texts are compared in this process, which may take longer than others may be idle.
_SETTINGS = f"""
SET LOCAL statement_timeout = '{SECONDS}s'; SET LOCAL lock_timeout = '{{wait_ms}}ms';
SET LOCAL idle_in_transaction_session_timeout = '{SECONDS}s';
SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off;
SET LOCAL enable_nestloop = off; SET LOCAL jit = off; SET LOCAL work_mem = '64MB'
"""
_STATE = "SELECT generation, recipe, building, build_recipe, reached FROM tallied WHERE experiment = $1"
_BEGIN = "INSERT INTO tallied (experiment, generation, recipe) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING"
_BUILD = """
UPDATE tallied SET building = coalesce(building, generation) + 1, build_recipe = $2, reached = '' WHERE experiment = $1
"""
_REACHED = "UPDATE tallied SET reached = $2 WHERE experiment = $1"
_SWITCH = """
UPDATE tallied SET generation = building, recipe = build_recipe, building = NULL, build_recipe = NULL, reached = NULL,
                   leftovers = true
WHERE experiment = $1
"""
_USERS = "SELECT DISTINCT unit FROM inferences WHERE experiment = $1 AND unit > $2 ORDER BY unit LIMIT $3"
_WAITING = "SELECT experiment FROM tallied WHERE building IS NOT NULL OR recipe = '' ORDER BY experiment LIMIT 1"
_LEFTOVERS = "SELECT experiment, generation FROM tallied WHERE leftovers AND building IS NULL LIMIT 1"
_SWEEP = """
DELETE FROM {table} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {table} WHERE experiment = $1 AND generation < $2 LIMIT $3
))
"""
_SWEPT = "UPDATE tallied SET leftovers = false WHERE experiment = $1"

_FIRSTS = """
WITH first AS (
    SELECT DISTINCT ON ({analysed}) {analysed} AS au, i.id, i.messages IS NOT NULL AS content FROM inferences i
    WHERE {found} AND {exposures} ORDER BY {analysed}, i.created_at, i.id
)
SELECT i.* FROM first f
LEFT JOIN (SELECT * FROM tallies WHERE experiment = $1 AND generation = $4 AND unit = ANY ($3)) AS t
       ON t.unit = f.au AND t.first = f.id
CROSS JOIN LATERAL (
    SELECT i.id, i.input_tokens, i.params::text AS params, i.messages IS NOT NULL AS content,
           CASE WHEN octet_length(i.messages::text) <= {most} THEN i.messages::text END AS messages
    FROM inferences i WHERE i.id = f.id OFFSET 0) AS i
WHERE t.content IS DISTINCT FROM f.content
"""
_CORRECTED = """
SELECT i.id AS inference_id, left(i.answer, {compared}) AS answer, left(f.ideal, {compared}) AS ideal
FROM inferences i CROSS JOIN LATERAL (
    SELECT coalesce(f.correction, f.words) AS ideal FROM feedback f
    WHERE f.inference_id = i.id AND f.tenant = i.tenant AND (f.correction IS NOT NULL OR f.kind = 'demonstration')
    ORDER BY f.seq DESC LIMIT 1) AS f
WHERE {found} AND {exposures} AND i.answer IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class State:
    """Which generations there are. The one that is read has no recipe while it has not been built for the first time;
    `reached` is how far the one under way has come."""

    generation: int
    recipe: str
    building: int | None = None
    build_recipe: str | None = None
    reached: str | None = None

    @property
    def live(self) -> tuple[int, ...]:
        """Those that must hear of what comes in."""
        read = (self.generation,) if self.recipe else ()
        return (*read, self.building) if self.building is not None else read


@dataclass(frozen=True, slots=True)
class First:
    """A unit's first exposure: its inference, and what tells which parts of the traffic the unit belongs to.

    `params` and `messages` are JSON; `content` says whether the prompt is kept, `messages` is None also if it is long.
    """

    id: str
    input_tokens: int | None
    params: str
    content: bool
    messages: str | None


@dataclass(frozen=True, slots=True)
class Corrected:
    """A stored answer and the latest ideal answer that somebody gave for it, the first `COMPARED` letters of each."""

    inference_id: str
    answer: str
    ideal: str


@dataclass(slots=True)
class FromOutside:
    """What SQL cannot work out: the segments of first exposures, the distances of corrections; by inference."""

    segments: dict[str, tuple[tuple[str, ...], bool]] = field(default_factory=dict)
    distances: dict[str, Decimal] = field(default_factory=dict)


class Busy(Unavailable):
    """Somebody else is working something out, and was not done in time."""


async def enter(connection: Connection, *, wait_seconds: float) -> None:
    """Be the only one who works anything out, until the transaction ends. Raises `Busy` after waiting in vain.

    Each later statement sees what was committed until then.
    """
    await connection.execute(_SETTINGS.format(wait_ms=max(1, round(wait_seconds * 1000))))
    try:
        # The server gives up first, and says why.
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK, timeout=wait_seconds + STATEMENT_SECONDS)
    except asyncpg.LockNotAvailableError as error:
        raise Busy("Results are being worked out already.", remedy="Try again shortly.") from error
    await connection.execute("SET LOCAL lock_timeout = 0")


async def state_of(connection: Connection, recipe: Recipe) -> State:
    """Of an experiment whose rows are about to change. If it was worked out by another recipe, it begins anew."""
    row = await connection.fetchrow(_STATE, recipe.experiment.id)
    if row is None:
        await connection.execute(_BEGIN, recipe.experiment.id, recipe.digest)
        return State(0, recipe.digest)
    state = State(**row)
    if recipe.digest in (state.recipe, state.build_recipe):
        return state
    return await begin_build(connection, recipe)


async def begin_build(connection: Connection, recipe: Recipe) -> State:
    """Begin to work all of it out anew; a build under way is given up."""
    await connection.execute(_BEGIN, recipe.experiment.id, recipe.digest)
    await connection.execute(_BUILD, recipe.experiment.id, recipe.digest)
    return State(**await connection.fetchrow(_STATE, recipe.experiment.id))


async def waiting(connection: Connection) -> str | None:
    """An experiment that is being built, or has never been."""
    found: str | None = await connection.fetchval(_WAITING)
    return found


async def next_users(connection: Connection, experiment: Experiment, after: str, limit: int) -> list[str]:
    """The users (as `Inference.unit`) that come next in a build."""
    return [row["unit"] for row in await connection.fetch(_USERS, experiment.id, after, limit)]


async def units_of(connection: Connection, experiment: Experiment, users: Sequence[str]) -> list[str]:
    """What counts as one unit, of all that these users did in the experiment."""
    if experiment.unit is Unit.TARGETING_KEY:
        return list(users)
    analysed = ANALYSED[experiment.unit]
    query = f"SELECT DISTINCT {analysed} FROM inferences i WHERE i.experiment = $1 AND i.unit = ANY ($2)"  # noqa: S608 — built from constants
    return [row[0] for row in await connection.fetch(query, experiment.id, list(users))]


async def reached(connection: Connection, experiment_id: str, user: str | None) -> None:
    """A build has come so far; None: to its end, and what it made is read from now on."""
    if user is None:
        await connection.execute(_SWITCH, experiment_id)
    else:
        await connection.execute(_REACHED, experiment_id, user)


async def sweep(connection: Connection, limit: int) -> bool:
    """Delete up to `limit` units of generations of before; whether there were any such generations."""
    row = await connection.fetchrow(_LEFTOVERS)
    if row is None:
        return False
    done = 0
    for table in ("tallies", "totals", "arrivals"):
        status = await connection.execute(_SWEEP.format(table=table), row["experiment"], row["generation"], limit)
        done += int(status.split()[-1])
    if done == 0:
        await connection.execute(_SWEPT, row["experiment"])
    return True


async def firsts(connection: Connection, recipe: Recipe, units: Sequence[str], generation: int) -> list[First]:
    """First exposures of which nothing is known yet, or whose prompt has come or gone since."""
    query = _query(_FIRSTS, recipe.experiment.unit)
    given = (recipe.experiment.id, recipe.experiment.tenant, units, generation)
    return [First(**row) for row in await connection.fetch(query, *given, timeout=SECONDS)]


async def corrected(connection: Connection, recipe: Recipe, units: Sequence[str]) -> list[Corrected]:
    """The answers of these units for which somebody gave a better one."""
    query = _query(_CORRECTED, recipe.experiment.unit)
    given = (recipe.experiment.id, recipe.experiment.tenant, units)
    return [Corrected(**row) for row in await connection.fetch(query, *given, timeout=SECONDS)]


async def work_out(
    connection: Connection, recipe: Recipe, units: Sequence[str], generation: int, outside: FromOutside
) -> None:
    """Bring these units, and the totals, to what the raw rows say now."""
    one, price = recipe.experiment, recipe.price
    exposures, parts = list(outside.segments), list(outside.segments.values())
    await connection.execute(
        _statement(one.unit, past=one.unit is Unit.TARGETING_KEY and one.plan.cuped_days > 0),
        one.id,
        one.tenant,
        units,
        generation,
        sorted(epoch.revision for epoch in one.epochs),
        one.alias,
        one.plan.cuped_days,
        price.input if price else None,
        price.output if price else None,
        [ratio.name for ratio in recipe.ratios],
        [ratio.numerator for ratio in recipe.ratios],
        [ratio.denominator for ratio in recipe.ratios],
        recipe.own,
        list(outside.distances),
        list(outside.distances.values()),
        exposures,
        [json.dumps(list(segments)) for segments, _ in parts],
        [content for _, content in parts],
        one.plan.primary,
        timeout=SECONDS,
    )


@lru_cache
def _statement(unit: Unit, *, past: bool) -> str:
    return statement(unit, past=past)


@lru_cache
def _query(template: str, unit: Unit) -> str:
    return template.format(
        analysed=ANALYSED[unit], found=FOUND[unit], exposures=EXPOSURES, most=MOST_LETTERS, compared=COMPARED
    )


async def words(connection: Connection, experiment_id: str) -> list[tuple[str, str]]:
    """The languages and tags that the experiment tells apart so far: (key, value)."""
    rows = await connection.fetch("SELECT key, value FROM segment_words WHERE experiment = $1", experiment_id)
    return [(row["key"], row["value"]) for row in rows]


async def add_words(connection: Connection, experiment_id: str, new: Sequence[tuple[str, str]]) -> None:
    """From now on these, too."""
    await connection.executemany(
        "INSERT INTO segment_words (experiment, key, value) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        [(experiment_id, key, value) for key, value in new],
    )
