"""What people type into forms, as numbers. Text in, values or a sentence out; it knows no form."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gateway.errors import InvalidRequest


def number_of(fields: Mapping[str, str], name: str, usual: float | None = None) -> float:
    """A number; `usual` where nothing was typed. Raises `InvalidRequest`."""
    text = fields.get(name, "").strip().replace(",", ".")
    if not text and usual is not None:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidRequest(f"{_label(name)}: `{text[:40]}` is no number.", param=name)
    return value


def whole_number(fields: Mapping[str, str], name: str, usual: int | None = None) -> int:
    """A whole number from 0 up. Raises `InvalidRequest`."""
    value = number_of(fields, name, usual)
    if not value.is_integer() or not 0 <= value <= 1e12:
        raise InvalidRequest(f"{_label(name)}: give a whole number from 0 up.", param=name)
    return int(value)


def share_of(fields: Mapping[str, str], name: str, usual: float | None = None) -> float:
    """A share that was typed in percent. Raises `InvalidRequest`."""
    percent = number_of(fields, name, None if usual is None else usual * 100)
    if not 0 <= percent <= 100:
        raise InvalidRequest(f"{_label(name)}: give 0 to 100 percent.", param=name)
    return percent / 100


def _label(name: str) -> str:
    return name.replace("_", " ").replace("-", " ").capitalize()
