"""Rows of `workers`: what each gateway worker last said about itself, for as long as it keeps saying it."""

from __future__ import annotations

import json

from gateway.domain import WorkerReport
from gateway.store.database import Connection, Database
from gateway.store.notices import WORKERS


async def report(db: Database, worker: WorkerReport, ttl: float) -> None:
    """Say it, for `ttl` seconds, and wake whoever waits for workers. A `ttl` of zero withdraws what was said."""
    async with db.transaction() as connection:
        if ttl <= 0:
            await connection.execute("DELETE FROM workers WHERE worker = $1", worker.worker)
        else:
            await _put(connection, worker, ttl)
        await connection.execute("SELECT pg_notify($1, $2)", WORKERS, worker.worker)


async def live(db: Database) -> list[WorkerReport]:
    """What all those say whose report has not run out, by name."""
    async with db.transaction(picture=True) as connection:
        rows = await connection.fetch(
            "SELECT worker, snapshot_version, ready, engine_boot, resident, leased, failed FROM workers"
            " WHERE expires_at > now() ORDER BY worker"
        )
    return [
        WorkerReport(
            worker=row["worker"],
            snapshot_version=row["snapshot_version"],
            ready=row["ready"],
            engine_boot=row["engine_boot"],
            resident=frozenset(row["resident"]),
            leased=frozenset(row["leased"]),
            failed=json.loads(row["failed"]),
        )
        for row in rows
    ]


async def _put(connection: Connection, worker: WorkerReport, ttl: float) -> None:
    await connection.execute(
        "INSERT INTO workers (worker, snapshot_version, ready, engine_boot, resident, leased, failed, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8)) ON CONFLICT (worker) DO UPDATE SET"
        " (snapshot_version, ready, engine_boot, resident, leased, failed, expires_at) ="
        " ROW (EXCLUDED.snapshot_version, EXCLUDED.ready, EXCLUDED.engine_boot, EXCLUDED.resident, EXCLUDED.leased,"
        " EXCLUDED.failed, EXCLUDED.expires_at)",
        worker.worker,
        worker.snapshot_version,
        worker.ready,
        worker.engine_boot,
        sorted(worker.resident),
        sorted(worker.leased),
        json.dumps(worker.failed).replace("\\u0000", "\\ufffd"),  # jsonb refuses NUL, and an engine's word may hold one
        ttl,
    )
    # Those that never said goodbye: their names never come back, so somebody has to sweep.
    await connection.execute("DELETE FROM workers WHERE expires_at < now() - interval '1 minute'")
