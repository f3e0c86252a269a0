"""Feedback: what was said about answers, the newest first, filtered and page by page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway.console import naming
from gateway.console.here import Here, Place
from gateway.errors import InvalidRequest
from gateway.store import browsing
from gateway.store.browsing import Wanted

router = APIRouter()
PLACE = Place("feedback", "Feedback")

Text = Annotated[str, Query(max_length=256)]
_WORDS = {"yes": 1.0, "true": 1.0, "good": 1.0, "no": 0.0, "false": 0.0, "bad": 0.0}
_SEQ = 2**63


@router.get("/t/{tenant}/feedback")
async def index(
    here: Here,
    alias: Text = "",
    variant: Text = "",
    version: Text = "",
    metric: Text = "",
    value: Text = "",
    source: Text = "",
    since: Text = "",
    corrected: Annotated[str, Query(pattern="^(yes|no|)$")] = "",
    before: Annotated[int | None, Query(ge=0, lt=_SEQ)] = None,
) -> Response:
    asked = {
        "alias": alias,
        "variant": variant,
        "version": version,
        "metric": metric,
        "value": value,
        "source": source,
        "since": since,
        "corrected": corrected,
    }
    asked = {name: text.strip() for name, text in asked.items() if text.strip()}
    page = await browsing.feedback(here.rooms.db, here.tenant, wanted(asked), before=before)
    snapshot = here.rooms.current.snapshot
    return here.page(
        "feedback.jinja",
        title="Feedback",
        asked=asked,
        found=page.found,
        looked_at=page.looked_at,
        first=before is None,
        older=None if page.older is None else "?" + urlencode({**asked, "before": page.older}),
        aliases=[(name, name) for name in naming.aliases(snapshot, here.tenant)],
        versions=[(one.served, one.label) for one in naming.versions(snapshot, here.tenant, retired=True)],
        metrics=[(one.name, one.name) for one in naming.metrics(snapshot, here.tenant)],
    )


def wanted(asked: Mapping[str, str]) -> Wanted:
    """The filter that these fields of the form mean; what is missing or empty filters nothing.

    A value is yes or no, a number, or else a part of the words. Raises `InvalidRequest` for what is no day.
    """
    number, text = _value(asked.get("value", ""))
    if any("\0" in one for one in asked.values()):
        raise InvalidRequest("The filter holds a NUL character.", remedy="Remove it.")
    return Wanted(
        alias=asked.get("alias"),
        variant=asked.get("variant"),
        version=asked.get("version"),
        metric=asked.get("metric"),
        source=asked.get("source"),
        number=number,
        text=text,
        since=_day(asked.get("since")),
        corrected=None if "corrected" not in asked else asked["corrected"] == "yes",
    )


def _value(text: str) -> tuple[float | None, str | None]:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()], None
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number, None
    return None, text or None


def _day(text: str | None) -> datetime | None:
    if text is None:
        return None
    with suppress(ValueError):
        day = datetime.fromisoformat(text)
        if 2000 <= day.year < 2200:
            return day if day.tzinfo else day.replace(tzinfo=UTC)
    raise InvalidRequest(f"`{text[:40]}` is no day.", remedy="Write it as 2026-01-31.", param="since")
