"""Live traffic and what was said about it, as training rows (`examples`) or as the evidence behind them (`judged`).

One inference makes one row. Of an example, somebody's own words (a demonstration, a correction) make a demonstration; a
thumb makes a labelled answer, turned round where the metric is better when smaller. A judged answer has all feedback
that counts. It knows no SQL, and nothing of how a trainer uses a row.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Literal, TypeVar

from adapters.examples import Example
from adapters.judgements import Judged, Other, Said
from gateway.domain import MetricKind
from gateway.errors import Conflict, NotFound
from gateway.store import exports
from gateway.store.database import Database

log = logging.getLogger("gateway.feedback.export")

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
Row = TypeVar("Row", Example, Judged)


def examples(
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
    return _each(_example, database, tenant, alias=alias, metric=metric, since=since)


def judged(
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
    return _each(_judged, database, tenant, alias=alias, metric=metric, since=since)


async def _each(
    made: Callable[[exports.Judged, frozenset[str]], Row | None],
    database: Database,
    tenant: str,
    *,
    alias: str | None,
    metric: str | None,
    since: datetime | None,
) -> AsyncIterator[Row]:
    """What is made of each judged inference, less those of which nothing is."""
    extent = await _extent(database, tenant)
    since = since or BEGINNING
    async for row in exports.judged(database, tenant, alias=alias, metric=metric, since=since, until=extent.until):
        one = made(row, extent.smaller_is_better)
        if one is not None:
            yield one


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


def _example(row: exports.Judged, smaller: frozenset[str]) -> Example | None:
    """None where nothing said is a label, and, with a line in the log, for a prompt that is no chat: an engine refused
    it, and so would a trainer."""
    best = max((one for one in row.feedback if _labels(one, row)), key=_worth, default=None)
    if best is None:
        return None
    written = _written(best)
    kind: Literal["demonstration", "label"] = "label" if written is None else "demonstration"
    try:
        example = Example(
            messages=row.messages,
            completion=row.answer or "" if written is None else written,
            kind=kind,
            label=bool(best.number) is not (best.metric in smaller) if kind == "label" else None,
            inference_id=row.id,
            feedback_ids=[best.id],
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


def _written(said: exports.Said) -> str | None:
    """The ideal answer that somebody wrote to this very request."""
    if not said.own:
        return None
    return said.correction or (said.words if said.kind is MetricKind.DEMONSTRATION else None)


def _labels(said: exports.Said, row: exports.Judged) -> bool:
    """A thumb needs a whole answer to be about."""
    return _written(said) is not None or (said.kind is MetricKind.BOOLEAN and row.whole)


def _worth(said: exports.Said) -> tuple[bool, bool, int]:
    """A text somebody wrote beats a thumb; what was said about this answer beats what was said about the whole
    conversation; later beats earlier."""
    return _written(said) is not None, said.own, said.seq


def _judged(row: exports.Judged, smaller: frozenset[str]) -> Judged | None:
    """None, and a line in the log, for what no trainer could make an example of."""
    try:
        Example(messages=row.messages, completion="")  # whether it is a chat
        found = Judged(
            inference_id=row.id,
            created_at=row.created_at,
            messages=row.messages,
            answer=row.answer,
            complete=row.whole,
            alias=row.alias,
            variant=row.variant,
            adapter=row.served,
            experiment=row.experiment,
            propensity=row.propensity,
            unit=row.unit,
            episode=row.episode,
            feedback=[_said(one, row, smaller) for one in row.feedback],
        )
        found.to_json()
    except ValueError as error:
        _left_out(row.id, error)
        return None
    return found


def _said(said: exports.Said, row: exports.Judged, smaller: frozenset[str]) -> Said:
    value = said.words or "" if said.number is None else said.number
    return Said(
        id=said.id,
        metric=said.metric,
        kind=said.kind.value,
        optimize="min" if said.metric in smaller else "max",
        about="inference" if said.own else "episode",
        value=bool(value) if said.kind is MetricKind.BOOLEAN else value,
        correction=said.correction,
        comment=said.comment,
        source=said.source,
        over=_other(str(value), row) if said.kind is MetricKind.PREFERENCE else None,
        created_at=said.created_at,
    )


def _other(inference_id: str, row: exports.Judged) -> Other:
    loser = row.losers.get(inference_id)
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
