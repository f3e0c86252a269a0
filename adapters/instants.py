"""A moment as the contract writes it: aware, and in UTC, so that the same moment always has the same text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the moment is outside the calendar") from error


Instant = Annotated[AwareDatetime, AfterValidator(_in_utc)]
