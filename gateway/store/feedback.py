"""SQL for feedback: one durable row per judgement. It knows nothing of HTTP or of what a value means."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain import Feedback, MetricKind
from gateway.store.database import Database
from gateway.store.marks import PAST_MATTERS

# What an experiment's figures rest on is marked (`marks.py`); so is what is said of an inference that is not there yet.
_INSERT = f"""
WITH written AS (
INSERT INTO feedback (id, tenant, metric, kind, number, words, created_at, inference_id, episode_id, comment,
                      correction, source, idempotency_key, body_digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id, body_digest, tenant, inference_id, episode_id
), said AS (
    SELECT f.*, i.id AS asked, i.alias, i.experiment, i.trace_id, i.span_id FROM written f
    LEFT JOIN inferences i ON i.id = f.inference_id AND i.tenant = f.tenant
), marked AS (
    INSERT INTO marks (tenant, experiment, inference, episode)
    SELECT w.tenant, w.experiment, w.inference_id, w.episode_id FROM said w
    WHERE w.asked IS NULL OR w.experiment IS NOT NULL OR {PAST_MATTERS}
)
SELECT id, body_digest, trace_id, span_id FROM said
"""  # noqa: S608 — built from a constant
_SAID_BEFORE = "SELECT id, body_digest FROM feedback WHERE tenant = $1 AND idempotency_key = $2"
_KIND = "SELECT kind FROM metrics WHERE tenant = $1 AND name = $2"


@dataclass(frozen=True, slots=True)
class Recorded:
    """The row that now stands for what was said: a new one, or the one written under the same idempotency key before.

    `digest` is that row's body digest; `trace_id` and `span_id` are the judged request's, if its row is there yet.
    """

    id: str
    digest: bytes
    created: bool
    trace_id: str | None = None
    span_id: str | None = None


async def record(database: Database, feedback: Feedback, *, kind: MetricKind, digest: bytes) -> Recorded:
    """Write one row and return once it is on disk. Raises `Unavailable` if PostgreSQL is away."""
    wordy = isinstance(feedback.value, str)
    async with database.transaction() as connection:
        # Whatever the server's default: a 2xx for feedback means that a power cut cannot take it back.
        await connection.execute("SET LOCAL synchronous_commit = on")
        row = await connection.fetchrow(
            _INSERT,
            feedback.id,
            feedback.tenant,
            feedback.metric,
            kind.value,
            None if wordy else float(feedback.value),
            feedback.value if wordy else None,
            feedback.created_at,
            feedback.inference_id,
            feedback.episode_id,
            feedback.comment,
            feedback.correction,
            feedback.source,
            feedback.idempotency_key,
            digest,
        )
        if row is None:
            row = await connection.fetchrow(_SAID_BEFORE, feedback.tenant, feedback.idempotency_key)
            return Recorded(row["id"], bytes(row["body_digest"]), created=False)
    return Recorded(row["id"], digest, created=True, trace_id=row["trace_id"], span_id=row["span_id"])


async def metric_kind(database: Database, tenant: str, name: str) -> MetricKind | None:
    """The kind of a metric declared a moment ago, which this worker's snapshot may not show yet; None if undeclared."""
    async with database.transaction() as connection:
        kind = await connection.fetchval(_KIND, tenant, name)
    return None if kind is None else MetricKind(kind)
