"""Taking feedback: is the id this tenant's, is the metric declared, does the value fit; then one durable row.

It knows nothing of HTTP. Whether an inference was really given to a tenant is told from the id itself, so feedback that
arrives before its inference's row is welcome, and a foreign id looks exactly like a made-up one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, model_validator

from gateway.domain import Feedback, MetricKind, Tenant
from gateway.errors import IdempotencyMismatch, InvalidRequest, NotFound
from gateway.identity import canonical_inference_id, inference_of_uuid, is_inference_of
from gateway.snapshot import Current
from gateway.store import feedback as rows
from gateway.store.database import Database

log = logging.getLogger("gateway.feedback.intake")

MAX_TEXT = 100_000
MAX_COMMENT = 10_000
MAX_NUMBER = 1e12
"""Larger than any rating, latency or price; its square still fits the sums of squares that results are made of."""

_WORDS = frozenset((MetricKind.COMMENT, MetricKind.DEMONSTRATION, MetricKind.PREFERENCE))

Emit = Callable[[Feedback, str | None, str | None], None]
"""Told of each new judgement, with the trace and span ids of the request it is about, if these are known."""

EXAMPLE: dict[str, JsonValue] = {
    "inference_id": "chatcmpl-0192f0c1d2e37a4b8c5d6e7f8091a2b3c4d5e6f70819",
    "metric": "helpful",
    "value": True,
    "comment": "Exactly what I needed.",
    "source": "end-user",
    "idempotency_key": "ticket-4711-thumb",
}


class FeedbackBody(BaseModel):
    """One judgement of a live answer, or of a whole conversation."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, json_schema_extra={"examples": [EXAMPLE]})

    inference_id: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="The `id` of the answer (or its `x-inference-id`). Give this or `episode_id`."
    )
    episode_id: Annotated[str, Field(min_length=1, max_length=256)] | None = Field(
        None, description="What the requests of the conversation carried as `x-episode-id`."
    )
    metric: str = Field(min_length=1, max_length=64, description="A metric declared for the tenant.")
    value: bool | FiniteFloat | Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] = Field(
        description="As the metric's kind wants it: true or false, a number, a comment, the ideal answer, or of a "
        "preference the `id` of the answer that this one is better than."
    )
    comment: Annotated[str, Field(max_length=MAX_COMMENT)] | None = Field(None, description="In the judge's own words.")
    correction: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = Field(
        None, description="The ideal answer; it becomes a training example."
    )
    source: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Who judged, such as `end-user` or `reviewer`. The latest value of each source counts."
    )
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="Makes a repeat harmless: the same key and body answer with the same feedback id."
    )

    @model_validator(mode="after")
    def _about_one_thing(self) -> Self:
        if (self.inference_id is None) == (self.episode_id is None):
            raise ValueError("give exactly one of inference_id and episode_id")
        return self


class Intake:
    """`accept` is the whole of it, `check` its dry run. `emit` is told of each new judgement after it is durable."""

    def __init__(self, database: Database, current: Current, *, emit: Emit | None = None) -> None:
        self._database = database
        self._current = current
        self._emit = emit

    async def accept(self, tenant: Tenant, body: FeedbackBody) -> tuple[Feedback, bool]:
        """The feedback as it stands, and whether it is new (False: said before under this idempotency key).

        Raises `NotFound` for an id that was never given to this tenant, `InvalidRequest` for an undeclared metric or a
        value of the wrong kind, `IdempotencyMismatch` for a reused key, `Unavailable` if it cannot be made durable.
        """
        feedback, kind = await self._read(tenant, body)
        digest = _digest(feedback)
        recorded = await rows.record(self._database, feedback, kind=kind, digest=digest)
        if recorded.digest != digest:
            raise IdempotencyMismatch(
                "This idempotency_key was used with another body.",
                remedy="Use a new key for new feedback, and the old key only to repeat the same feedback.",
                param="idempotency_key",
            )
        if recorded.created:
            self._tell(feedback, recorded)
        return replace(feedback, id=recorded.id), recorded.created

    async def check(self, tenant: Tenant, body: FeedbackBody) -> Feedback:
        """As `accept`, and nothing is kept."""
        feedback, _ = await self._read(tenant, body)
        return feedback

    async def _read(self, tenant: Tenant, body: FeedbackBody) -> tuple[Feedback, MetricKind]:
        inference = self._own_inference(tenant, body.inference_id)
        kind = await self._kind(tenant, body.metric)
        _about_one_answer(kind, body)
        value = _fitting(kind, body)
        if kind is MetricKind.PREFERENCE:
            value = self._loser(tenant, str(value), inference)
        feedback = Feedback(
            id=f"fb-{uuid.uuid4().hex}",
            tenant=tenant.name,
            metric=body.metric,
            value=value,
            created_at=datetime.now(UTC),
            inference_id=inference,
            episode_id=body.episode_id,
            comment=body.comment,
            correction=body.correction,
            source=body.source,
            idempotency_key=body.idempotency_key,
        )
        return feedback, kind

    def _own_inference(self, tenant: Tenant, text: str | None, *, param: str = "inference_id") -> str | None:
        if text is None:
            return None
        secret, bare = self._current.snapshot.secret, canonical_inference_id(text)
        if bare is None:
            bare = inference_of_uuid(secret, tenant.name, text)
        elif not is_inference_of(secret, tenant.name, bare):
            bare = None
        if bare is None:
            # Without the id: foreign and made-up ones answer with the same bytes.
            raise NotFound("No such inference was given to this tenant.", param=param)
        return bare

    def _loser(self, tenant: Tenant, text: str, winner: str | None) -> str:
        loser = self._own_inference(tenant, text, param="value")
        if loser is None or loser == winner:
            raise InvalidRequest(
                "An answer cannot be better than itself.",
                remedy="Send the winner as inference_id and the loser as value.",
                param="value",
            )
        return loser

    async def _kind(self, tenant: Tenant, name: str) -> MetricKind:
        known = self._current.snapshot.metrics
        metric = known.get((tenant.name, name))
        kind = metric.kind if metric else await rows.metric_kind(self._database, tenant.name, name)
        if kind is None:
            mine = sorted(metric for owner, metric in known if owner == tenant.name)
            remedy = f"Use one of: {', '.join(mine)}." if mine else "Declare one: gateway metrics declare TENANT NAME."
            raise InvalidRequest(
                "This metric is not declared for the tenant.", remedy=remedy, param="metric", code="metric_not_found"
            )
        return kind

    def _tell(self, feedback: Feedback, recorded: rows.Recorded) -> None:
        if self._emit is None:
            return
        try:
            self._emit(feedback, recorded.trace_id, recorded.span_id)
        except Exception:  # The row is durable: failing telemetry must not make the client say it again.
            log.exception("feedback event not emitted", extra={"feedback": feedback.id})


def _fitting(kind: MetricKind, body: FeedbackBody) -> bool | float | str:
    """The value in the metric's own type. Raises `InvalidRequest` if it is of another kind."""
    value = body.value
    if kind is MetricKind.RATIO:
        raise InvalidRequest(
            "A ratio is worked out of two other metrics, and never said.",
            remedy="Send feedback on its numerator or its denominator.",
            param="metric",
        )
    if kind is MetricKind.BOOLEAN and isinstance(value, bool):
        return value
    if kind is MetricKind.FLOAT and isinstance(value, (int, float)) and not isinstance(value, bool):
        if abs(value) <= MAX_NUMBER:
            return float(value)
        raise InvalidRequest(f"The value is beyond ±{MAX_NUMBER:g}.", remedy="Use a larger unit.", param="value")
    if kind is MetricKind.COUNT and isinstance(value, (int, float)) and not isinstance(value, bool):
        if 0 <= value <= MAX_NUMBER and value == int(value):
            return float(value)
        raise InvalidRequest(
            "A count is a whole number from 0 up.", remedy=f"Send one up to {MAX_NUMBER:g}.", param="value"
        )
    if kind in _WORDS and isinstance(value, str):
        return value
    wanted = {
        MetricKind.BOOLEAN: "true or false",
        MetricKind.FLOAT: "a number",
        MetricKind.COUNT: "a whole number from 0 up",
        MetricKind.COMMENT: "a string, the comment",
        MetricKind.DEMONSTRATION: "a string, the ideal answer",
        MetricKind.PREFERENCE: "a string, the id of the answer that lost",
    }[kind]
    raise InvalidRequest(
        f"The value does not fit a metric of kind {kind}.", remedy=f"Send {wanted}.", param="value", code="invalid_type"
    )


def _about_one_answer(kind: MetricKind, body: FeedbackBody) -> None:
    """Refuse an ideal answer for a whole conversation: nobody could say which of its requests it answers. So with a
    preference."""
    if body.episode_id is None:
        return
    if kind is MetricKind.PREFERENCE:
        raise InvalidRequest(
            "A preference is about one answer, not about a conversation.",
            remedy="Send the inference_id of the answer that won.",
            param="inference_id",
        )
    if kind is MetricKind.DEMONSTRATION or body.correction is not None:
        raise InvalidRequest(
            "An ideal answer belongs to one request, not to a conversation.",
            remedy="Send the inference_id of the request that it answers.",
            param="inference_id",
        )


def _digest(feedback: Feedback) -> bytes:
    """SHA-256 of what was said. The id's spelling (`chatcmpl-…` or bare) and the order of fields make no difference."""
    said = [
        feedback.inference_id,
        feedback.episode_id,
        feedback.metric,
        feedback.value,
        feedback.comment,
        feedback.correction,
        feedback.source,
    ]
    return hashlib.sha256(json.dumps(said).encode()).digest()
