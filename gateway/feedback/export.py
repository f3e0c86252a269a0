"""Live traffic and what was said about it, as training rows. It knows no SQL, and nothing of how a trainer uses a row.

One inference makes one row. Somebody's own words (a demonstration, a correction) make a demonstration; a thumb makes a
labelled answer, turned round where the metric is better when smaller.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Literal

from adapters.examples import Example
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
    extent = await exports.extent(database, tenant)
    if extent is None:
        raise NotFound(f"The tenant `{tenant}` does not exist or you do not have access to it.", param="tenant")
    if not extent.store_content:
        raise Conflict(
            f"The tenant `{tenant}` does not keep prompts and answers.",
            remedy=f"Opt in for future requests: gateway tenants update {tenant} --store-content.",
            code="content_not_stored",
        )
    after = (since or BEGINNING, "")
    while page := await exports.judged(database, tenant, alias=alias, metric=metric, after=after, until=extent.until):
        for row in page:
            example = _example(row, smaller_is_better=row.metric in extent.smaller_is_better)
            if example is not None:
                yield example
        after = (page[-1].created_at, page[-1].id)


def _example(row: exports.Judged, *, smaller_is_better: bool) -> Example | None:
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
        log.warning("inference left out of an export", extra={"inference": row.id, "reason": type(error).__name__})
        return None
    return example
