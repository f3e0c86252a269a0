"""Builders for what the feedback tests tell: a tenant on a real database, its inferences, and what was said of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from adapters.ref import AdapterRef
from gateway.control.metrics import Metrics
from gateway.control.tenants import Tenants
from gateway.domain import Inference, Metric, MetricKind, Tenant, Variant
from gateway.experiment import Experiment, Plan, Stage
from gateway.feedback.intake import FeedbackBody, Intake
from gateway.identity import new_inference_id, unit_of
from gateway.snapshot import Current
from gateway.store import experiments
from gateway.store.database import Database
from gateway.store.inferences import write_inferences
from gateway.store.snapshots import read_snapshot

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TUNED = AdapterRef("acme", "support", 1)
VARIANTS = (Variant("base", 1.0, None), Variant("tuned", 1.0, TUNED))
METRICS = (
    Metric("acme", "helpful", MetricKind.BOOLEAN),
    Metric("acme", "escalated", MetricKind.BOOLEAN, optimize="min"),
    Metric("acme", "stars", MetricKind.FLOAT),
    Metric("acme", "note", MetricKind.COMMENT),
    Metric("acme", "ideal", MetricKind.DEMONSTRATION),
)
EXPERIMENT = Experiment(
    "exp-1", "acme", "support", "tuning", VARIANTS, Stage.EXPERIMENT, BEGAN, plan=Plan(primary="helpful")
)


@dataclass(slots=True)
class Story:
    """Tenant `acme` (keeps content) and `globex` (does not), with the metrics above; time goes on by a second a row."""

    db: Database
    current: Current
    intake: Intake
    clock: Any

    async def asked(self, user: str, variant: str = "tuned", *, tenant: str = "acme", **changed: Any) -> str:
        """One inference is written; its id."""
        fresh = self.inference(user, variant, tenant=tenant, **changed)
        await write_inferences(self.db, [fresh])
        return fresh.id

    def inference(self, user: str, variant: str = "tuned", *, tenant: str = "acme", **changed: Any) -> Inference:
        secret = self.current.snapshot.secret
        served = "base" if variant == "base" else str(TUNED)
        fields: dict[str, Any] = {
            "id": new_inference_id(secret, tenant),
            "created_at": BEGAN + timedelta(seconds=next(self.clock)),
            "tenant": tenant,
            "key_id": "key-1",
            "endpoint": "chat",
            "alias": "support",
            "alias_revision": 2,
            "experiment": EXPERIMENT.id,
            "variant": variant,
            "assigned": served,
            "served": served,
            "served_digest": None,
            "reason": "split",
            "propensity": 0.5,
            "unit": unit_of(secret, tenant, user),
            "episode": None,
            "stream": False,
            "params": {},
            "status": 200,
            "outcome": "ok",
            "input_tokens": 10,
            "output_tokens": 4,
            "ttft_ms": 20.0,
            "messages": [{"role": "user", "content": f"{user} asks"}],
            "answer": f"an answer to {user}",
        }
        return Inference(**{**fields, **changed})

    async def thumbs(self, count: int, *, a_second: int) -> list[Inference]:
        """So many inferences, `a_second` of them at one moment each, and a thumb up on every one; in an export's
        order."""
        moments = [BEGAN + timedelta(seconds=i // a_second) for i in range(count)]
        asked = [self.inference(f"user-{i}", created_at=moment) for i, moment in enumerate(moments)]
        await write_inferences(self.db, asked)
        async with self.db.transaction() as connection:
            await connection.execute(
                "INSERT INTO feedback (id, tenant, metric, kind, number, created_at, inference_id, body_digest)"
                " SELECT 'fb-' || id, tenant, 'helpful', 'boolean', 1, now(), id, '' FROM inferences"
            )
        return sorted(asked, key=lambda one: (one.created_at, one.id))

    async def said(self, metric: str, value: Any, inference: str | None = None, **more: Any) -> str:
        """One piece of feedback is accepted; its id."""
        body = FeedbackBody(inference_id=inference, metric=metric, value=value, **more)
        feedback, _ = await self.intake.accept(Tenant("acme"), body)
        return feedback.id


async def begin(db: Database) -> Story:
    tenants, metrics = Tenants(db), Metrics(db)
    await tenants.create("acme", store_content=True, actor="test")
    await tenants.create("globex", actor="test")
    for metric in METRICS:
        await metrics.declare(metric, actor="test")
    async with db.transaction() as connection:
        await experiments.put(connection, EXPERIMENT)
    current = Current(await read_snapshot(db), stale=False)
    return Story(db, current, Intake(db, current), itertools.count(1))
