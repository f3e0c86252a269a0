"""Writes `inferences`, in batches, by COPY."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import asyncpg
import msgspec

from gateway.domain import Inference
from gateway.store.database import Database

_COLUMNS = [field.name for field in fields(Inference)]
_values = attrgetter(*_COLUMNS)
_INT4 = 2**31 - 1


async def write_inferences(db: Database, batch: Sequence[Inference]) -> None:
    """Write all of `batch`, in one transaction. Raises `Unavailable`.

    An id that is there already is left as it is, so a batch may be repeated after an error of unknown outcome.
    """
    rows = [_row(inference) for inference in batch]
    try:
        async with db.transaction() as connection:
            await connection.copy_records_to_table("inferences", records=rows, columns=_COLUMNS)
    except asyncpg.UniqueViolationError:
        await _write_missing(db, rows)


async def _write_missing(db: Database, rows: list[tuple[Any, ...]]) -> None:
    """The repeated batch, twice the work: COPY knows no ON CONFLICT, so it goes by way of a table of its own."""
    async with db.transaction() as connection:
        await connection.execute(
            "CREATE TEMP TABLE inferences_again (LIKE inferences INCLUDING DEFAULTS) ON COMMIT DROP"
        )
        await connection.copy_records_to_table("inferences_again", records=rows, columns=_COLUMNS)
        await connection.execute("INSERT INTO inferences SELECT * FROM inferences_again ON CONFLICT DO NOTHING")


def _row(inference: Inference) -> tuple[Any, ...]:
    """The columns' values. What came from outside is made to fit: one odd request must not cost its batch."""
    return tuple(map(_fitting, _values(inference)))


def _fitting(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict | list):
        return _json(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_INT4, min(value, _INT4))  # an engine may claim any number of tokens
    return value


def _text(text: str) -> str:
    """PostgreSQL's text holds neither NUL nor half a surrogate pair."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _json(value: object) -> str:
    """JSON text; NaN and infinities become null, half a surrogate pair stays an escape."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return json.dumps(value)
