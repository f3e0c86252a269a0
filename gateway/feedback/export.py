"""Live traffic and what was said about it, as training rows (`examples`) or as the evidence behind them (`judged`).

One inference makes one row. Of an example, somebody's own words (a demonstration, a correction) make a demonstration; a
thumb makes a labelled answer, turned round where the metric is better when smaller. A judged answer has all feedback
that counts. It knows no SQL, and nothing of how a trainer uses a row.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from adapters.examples import Example
from adapters.judgements import Judged, Other, Said
from gateway.domain import MetricKind
from gateway.errors import Conflict, NotFound
from gateway.store import exports
from gateway.store.database import Database

log = logging.getLogger("gateway.feedback.export")

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


async def examples(
    database: Database,
    tenant: str,
    *,
    alias: str | None = None,
    metric: str | None = None,
    since: datetime | None = None,
) -> AsyncIterator[Example]:
    """The tenant's rows, oldest inference first, up to the moment of the call; a page in memory at a time.

    `metric` keeps only feedback on that metric, `since` only inferences from then on. Raises `NotFound` for an unknown
    tenant and `Conflict` for one that keeps no content: there is nothing to learn from.
    """
    extent = await _extent(database, tenant)
    after = (since or BEGINNING, "")
    while page := await exports.labelled(database, tenant, alias=alias, metric=metric, after=after, until=extent.until):
        for row in page:
            example = _example(row, smaller_is_better=row.metric in extent.smaller_is_better)
            if example is not None:
                yield example
        after = (page[-1].created_at, page[-1].id)


async def judged(
    database: Database,
    tenant: str,
    *,
    alias: str | None = None,
    metric: str | None = None,
    since: datetime | None = None,
) -> AsyncIterator[Judged]:
    """The tenant's judged answers, in the order, within the bounds and with the errors of `examples`.

    Of each metric and source the latest feedback counts, on the answer and on its conversation each.
    """
    extent = await _extent(database, tenant)
    after = (since or BEGINNING, "")
    while True:
        page, losers = await exports.judged(
            database, tenant, alias=alias, metric=metric, after=after, until=extent.until
        )
        if not page:
            return
        for row in page:
            one = _judged(row, losers, extent.smaller_is_better)
            if one is not None:
                yield one
        after = (page[-1].created_at, page[-1].id)


async def _extent(database: Database, tenant: str) -> exports.Extent:
    extent = await exports.extent(database, tenant)
    if extent is None:
        raise NotFound(f"The tenant `{tenant}` does not exist or you do not have access to it.", param="tenant")
    if not extent.store_content:
        raise Conflict(
            f"The tenant `{tenant}` does not keep prompts and answers.",
            remedy=f"Opt in for future requests: gateway tenants update {tenant} --store-content.",
            code="content_not_stored",
        )
    return extent


def _example(row: exports.Labelled, *, smaller_is_better: bool) -> Example | None:
    """None, and a line in the log, for a prompt that is no chat: an engine refused it, and so would a trainer."""
    kind: Literal["demonstration", "label"] = "label" if row.written is None else "demonstration"
    try:
        example = Example(
            messages=row.messages,
            completion=row.answer or "" if row.written is None else row.written,
            kind=kind,
            label=bool(row.number) is not smaller_is_better if kind == "label" else None,
            inference_id=row.id,
            feedback_ids=[row.feedback_id],
            alias=row.alias,
            variant=row.variant,
            adapter=row.served,
            propensity=row.propensity,
            unit=row.unit,
            created_at=row.created_at,
        )
        example.to_json().encode()
    except ValueError as error:
        _left_out(row.id, error)
        return None
    return example


def _judged(row: exports.Judged, losers: Mapping[str, exports.Loser], smaller: frozenset[str]) -> Judged | None:
    """None, and a line in the log, for what no trainer could make an example of."""
    try:
        Example(messages=row.messages, completion="")  # whether it is a chat
        found = Judged(
            inference_id=row.id,
            created_at=row.created_at,
            messages=row.messages,
            answer=row.answer,
            complete=row.outcome == "ok" and bool(row.answer),
            alias=row.alias,
            variant=row.variant,
            adapter=row.served,
            experiment=row.experiment,
            propensity=row.propensity,
            unit=row.unit,
            episode=row.episode,
            feedback=[_said(one, row, losers, smaller) for one in row.feedback],
        )
        found.to_json()
    except ValueError as error:
        _left_out(row.id, error)
        return None
    return found


def _said(
    said: Mapping[str, Any], row: exports.Judged, losers: Mapping[str, exports.Loser], smaller: frozenset[str]
) -> Said:
    kind, value = MetricKind(said["kind"]), said["words"] if said["number"] is None else said["number"]
    return Said(
        id=said["id"],
        metric=said["metric"],
        kind=kind.value,
        optimize="min" if said["metric"] in smaller else "max",
        about="inference" if said["own"] else "episode",
        value=bool(value) if kind is MetricKind.BOOLEAN else value,
        correction=said["correction"],
        comment=said["comment"],
        source=said["source"],
        over=_other(value, row, losers.get(value)) if kind is MetricKind.PREFERENCE else None,
        created_at=datetime.fromisoformat(said["created_at"]),
    )


def _other(inference_id: str, row: exports.Judged, loser: exports.Loser | None) -> Other:
    if loser is None:  # not written yet, or its content was erased
        return Other(inference_id=inference_id, answer=None, same_prompt=False)
    whole = loser.outcome == "ok" and loser.answer
    return Other(
        inference_id=inference_id,
        answer=loser.answer if whole else None,
        same_prompt=loser.messages == row.messages,
    )


def _left_out(inference_id: str, error: ValueError) -> None:
    log.warning("inference left out of an export", extra={"inference": inference_id, "reason": type(error).__name__})
