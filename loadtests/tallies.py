"""`python -m loadtests.tallies --rows 10000000`: how tallies grow with an experiment's feedback (docs/tallies.md).

It fills a PostgreSQL of its own with one experiment, in SQL: four requests a user, two judgements a request, on two
metrics, no prompts kept (`--prompts`: short ones are). At each size it works all of it out from the raw rows, reads the
evidence and the results, and then works in fresh feedback on users all over the place. Times are the server's CPU
seconds, with the wall's beside them: the machine may have other work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import psutil

from adapters.ref import AdapterRef
from gateway.domain import Metric, MetricKind, Variant
from gateway.experiment import Experiment, Guardrail, Plan, Stage
from gateway.feedback.results import results
from gateway.feedback.tallies import Tallies
from gateway.store import embedded, experiments
from gateway.store.automatic import automatic
from gateway.store.database import Database
from gateway.store.migrate import migrate
from loadtests.progress import Progress

HELPFUL = Metric("acme", "helpful", MetricKind.BOOLEAN)
STARS = Metric("acme", "stars", MetricKind.FLOAT)
EXPERIMENT = Experiment(
    "exp-load",
    "acme",
    "support",
    "load",
    (Variant("base", 1.0, None), Variant("tuned", 1.0, AdapterRef("acme", "support", 1))),
    Stage.EXPERIMENT,
    datetime(2026, 1, 1, tzinfo=UTC),
    plan=Plan(primary="helpful", secondaries=("stars",), guardrails=(Guardrail("latency", 0.1, relative=True),)),
)
REQUESTS, JUDGEMENTS = 4, 2
"""Of a user, and of a request."""
STEP = 500_000
"""Requests in one statement of the filling."""
FRESH = 20_000
"""Judgements that come in after the rebuild."""

_START = """
INSERT INTO tenants (name, store_content, allow_pinning) VALUES ('acme', true, true);
INSERT INTO metrics (tenant, name, kind, optimize, description)
VALUES ('acme', 'helpful', 'boolean', 'max', ''), ('acme', 'stars', 'float', 'max', '')
"""
# Request r is of user r mod the number of users, so that users come back again and again, as they do.
_INFERENCES = """
INSERT INTO inferences (id, tenant, key_id, created_at, endpoint, alias, alias_revision, experiment, variant, assigned,
    served, reason, propensity, unit, stream, params, status, outcome, input_tokens, output_tokens, ttft_ms,
    duration_ms, messages, answer)
SELECT lpad(to_hex(r), 44, '0'), 'acme', 'key', timestamptz '2026-01-01' + r * interval '1 second',
    '/v1/chat/completions', 'support', 2, 'exp-load', v.variant, v.assigned, v.assigned, 'split', 0.5, u.unit, true,
    '{"temperature": 0.7}', 200,
    CASE WHEN r % 97 = 0 THEN 'engine_error' ELSE 'ok' END, 20 + r % 4000, 10 + r % 300, 20 + r % 180, 500 + r % 2000,
    CASE WHEN $4 THEN json_build_array(json_build_object('role', 'user', 'content',
        'I am still waiting for my card number ' || r || ', when will it come, and what can I do?')) END,
    CASE WHEN $4 THEN 'Your card is on its way, number ' || r || '. It takes five days.' END
FROM generate_series($1::bigint, $2::bigint) AS r
CROSS JOIN LATERAL (SELECT md5((r % $3::bigint)::text) AS unit) AS u
CROSS JOIN LATERAL (SELECT CASE WHEN u.unit < '8' THEN 'base' ELSE 'tuned' END AS variant,
    CASE WHEN u.unit < '8' THEN 'base' ELSE 'acme/support@1' END AS assigned) AS v
"""
_FEEDBACK = """
INSERT INTO feedback (created_at, id, tenant, metric, kind, number, inference_id, source, body_digest)
SELECT timestamptz '2026-01-01' + r * interval '1 second', 'fb-' || r || '-' || j, 'acme',
    CASE j WHEN 0 THEN 'helpful' ELSE 'stars' END, CASE j WHEN 0 THEN 'boolean' ELSE 'float' END,
    CASE j WHEN 0 THEN (r * 7919 % 10 < 6)::integer ELSE 1 + r * 104729 % 5 END, lpad(to_hex(r), 44, '0'),
    'end-user', ''
FROM generate_series($1::bigint, $2::bigint) AS r, generate_series(0, 1) AS j
"""
# A judgement that is changed, of requests all over the table; each with its mark, as store/feedback.py writes it.
_FRESH = """
WITH asked AS (SELECT lpad(to_hex(1 + n * $2::bigint / $1), 44, '0') AS id, n FROM generate_series(0, $1 - 1) AS n),
said AS (
    INSERT INTO feedback (created_at, id, tenant, metric, kind, number, inference_id, source, body_digest)
    SELECT now(), 'fresh-' || $2 || '-' || n, 'acme', 'helpful', 'boolean', n % 2, id, 'end-user', '' FROM asked
)
INSERT INTO marks (tenant, experiment, inference) SELECT 'acme', 'exp-load', id FROM asked
"""
_INDEXES = """
SELECT indexname, indexdef FROM pg_indexes
WHERE tablename IN ('inferences', 'feedback') AND indexdef NOT LIKE 'CREATE UNIQUE%'
"""
_SIZES = """
SELECT pg_total_relation_size('tallies') AS tallies, pg_total_relation_size('totals') AS totals,
       pg_total_relation_size('inferences') + pg_total_relation_size('feedback') AS raw,
       (SELECT count(*) FROM totals) AS rows, (SELECT count(*) FROM tallies) AS units
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds: of the server's CPU, and of the wall."""

    cpu: float
    wall: float


@dataclass(frozen=True, slots=True)
class Size:
    """What was measured at one size. `evidence` and `results` are one read each, the median of several."""

    feedback: int
    units: int
    rebuild: Spent
    evidence: Spent
    results: Spent
    fresh_units: int
    fresh: Spent
    unit_bytes: float
    totals_rows: int
    totals_bytes: int
    raw_bytes: int


class Server:
    """A PostgreSQL of our own, and what its processes have spent."""

    def __init__(self, directory: Path) -> None:
        self._embedded = embedded.start(directory)
        self.url = self._embedded.url
        self._root = psutil.Process(int((directory / "postmaster.pid").read_text().split("\n", 1)[0]))

    def cpu(self) -> float:
        """CPU seconds of the server and all its children, gone ones included."""
        times = [self._root.cpu_times()]
        for child in self._root.children():
            try:
                times.append(child.cpu_times())
            except psutil.Error:
                continue
        own = sum(one.user + one.system for one in times)
        return float(own + times[0].children_user + times[0].children_system)

    async def spent(self, work: Callable[[], Awaitable[object]]) -> Spent:
        """What `work` costs here."""
        cpu, wall = self.cpu(), time.perf_counter()
        await work()
        return Spent(self.cpu() - cpu, time.perf_counter() - wall)

    async def median(self, work: Callable[[], Awaitable[object]], times: int) -> Spent:
        """As `spent`, of one in `times`: CPU is the mean (its clock ticks in hundredths), the wall the median."""
        found = [await self.spent(work) for _ in range(times)]
        return Spent(sum(one.cpu for one in found) / times, sorted(one.wall for one in found)[times // 2])

    def stop(self) -> None:
        """Stop it."""
        self._embedded.stop()


@asynccontextmanager
async def scratch(directory: Path) -> AsyncIterator[tuple[Server, Database]]:
    """A server on `directory` with the newest schema and the experiment, and a connection to it."""
    server = Server(directory)
    try:
        connection = await asyncpg.connect(server.url)
        for setting in ("fsync = off", "synchronous_commit = off", "max_wal_size = '8GB'", "full_page_writes = off"):
            await connection.execute(f"ALTER SYSTEM SET {setting}")
        await connection.execute("SELECT pg_reload_conf()")
        await asyncio.to_thread(migrate, server.url)
        await connection.execute(_START)
        await experiments.put(connection, EXPERIMENT)
        await connection.close()
        database = await Database.connect(server.url)
        yield server, database
        await database.close()
    finally:
        server.stop()


async def fill(server: Server, requests: int, *, prompts: bool, say: Progress) -> None:
    """Write the raw rows of so many requests."""
    connection = await asyncpg.connect(server.url, server_settings={"maintenance_work_mem": "1GB"})
    users = requests // REQUESTS
    indexes = await connection.fetch(_INDEXES)
    for index in indexes:  # made again at once they take a third of the time
        await connection.execute(f"DROP INDEX {index['indexname']}")
    for low in range(1, requests + 1, STEP):
        high = min(low + STEP - 1, requests)
        say(f"filling: {high:,} of {requests:,} requests")
        await connection.execute(_INFERENCES, low, high, users, prompts, timeout=None)
        await connection.execute(_FEEDBACK, low, high, timeout=None)
    for index in indexes:
        await connection.execute(index["indexdef"], timeout=None)
    await connection.execute("VACUUM (ANALYZE) inferences, feedback", timeout=None)
    await connection.close()


async def measure(server: Server, database: Database, requests: int, say: Progress) -> Size:
    """Everything at the present size."""
    tallies, metrics = Tallies(database), {"helpful": HELPFUL, "stars": STARS, **automatic("acme")}

    async def rebuild() -> None:
        await tallies.begin_rebuild(EXPERIMENT.id)
        pieces = 0
        while await tallies.build():
            pieces += 1
            say(f"rebuilding: {pieces * 5000:,} of {requests // REQUESTS:,} users, and clearing away")

    async def catch_up() -> None:
        while await tallies.catch_up():
            say("working in fresh feedback")

    rebuilt = await server.spent(rebuild)
    connection = await asyncpg.connect(server.url)
    await connection.execute("VACUUM ANALYZE tallies, totals, arrivals", timeout=None)
    evidence = await server.median(lambda: tallies.evidence(EXPERIMENT, metrics), 21)
    shown = await server.median(lambda: results(database, EXPERIMENT, HELPFUL), 7)
    await connection.execute(_FRESH, FRESH, requests, timeout=None)
    fresh = await server.spent(catch_up)
    sizes = await connection.fetchrow(_SIZES, timeout=None)
    await connection.close()
    return Size(
        feedback=requests * JUDGEMENTS,
        units=sizes["units"],
        rebuild=rebuilt,
        evidence=evidence,
        results=shown,
        fresh_units=min(FRESH, sizes["units"]),
        fresh=fresh,
        unit_bytes=sizes["tallies"] / sizes["units"],
        totals_rows=sizes["rows"],
        totals_bytes=sizes["totals"],
        raw_bytes=sizes["raw"],
    )


def table(sizes: list[Size]) -> str:
    """In Markdown."""
    lines = [
        "| feedback | users | evidence ms (CPU) | results ms (CPU) | rebuild, users/s of CPU (of the wall) "
        "| fresh feedback, users/s of CPU (of the wall) | bytes a user | totals | raw rows |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sizes:
        rate, wall = one.units / one.rebuild.cpu, one.units / one.rebuild.wall
        fresh, fresh_wall = one.fresh_units / one.fresh.cpu, one.fresh_units / one.fresh.wall
        lines.append(
            f"| {one.feedback:,} | {one.units:,} | {one.evidence.wall * 1e3:.1f} ({one.evidence.cpu * 1e3:.1f}) "
            f"| {one.results.wall * 1e3:.1f} ({one.results.cpu * 1e3:.1f}) | {rate:,.0f} ({wall:,.0f}) "
            f"| {fresh:,.0f} ({fresh_wall:,.0f}) | {one.unit_bytes:.0f} "
            f"| {one.totals_rows} rows, {one.totals_bytes / 1024:.0f} kB | {one.raw_bytes / 2**30:.2f} GiB |"
        )
    return "\n".join(lines)


async def run(rows: int, *, prompts: bool, directory: str | None) -> int:
    """Measure at a tenth and at all of `rows` judgements; 1 if an evidence ever takes a second."""
    say, sizes = Progress("tallies"), []
    with tempfile.TemporaryDirectory(prefix="tl-tallies-", dir=directory, ignore_cleanup_errors=True) as path:
        for part in (10, 1):
            requests = rows // part // JUDGEMENTS
            # Each size is an experiment of its own: users of a larger one come back just as often.
            async with scratch(Path(path) / str(part)) as (server, database):
                await fill(server, requests, prompts=prompts, say=say)
                sizes.append(await measure(server, database, requests, say))
            say.end()
            print(table(sizes[-1:]), flush=True)
    print(table(sizes))
    print(json.dumps([asdict(one) for one in sizes]), file=sys.stderr)
    return int(any(one.evidence.wall >= 1 for one in sizes))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtests.tallies", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="judgements (10,000,000 need 25 GB of disk)")
    parser.add_argument("--prompts", action="store_true", help="keep prompts and answers, so that languages are told")
    parser.add_argument("--dir", help="where the database may grow; the temporary directory if left out")
    options = parser.parse_args()
    return asyncio.run(run(options.rows, prompts=options.prompts, directory=options.dir))


if __name__ == "__main__":
    sys.exit(main())
