"""Numbers, units, times and intervals as people read them. Values in, text out; it knows no page.

A share is shown in percent, and a difference of two shares in percentage points ("pp").
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import floor, isfinite, log10
from typing import Any

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"
SHARE = "share"
"""The unit of metrics between 0 and 1 that count how often something is so."""


def number(value: float | None, digits: int = 3) -> str:
    """With `digits` significant digits and thousands apart: 12,400 · 0.0312."""
    if value is None or not isfinite(value):
        return NOTHING
    if abs(value) < 1e-12:  # what is left of a sum of equal numbers
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    places = max(0, digits - 1 - floor(log10(abs(value))))
    text = f"{value:,.{min(places, 12)}f}"
    if float(value).is_integer() and abs(value) < 1e12:
        return f"{int(value):,}"
    return text


def plain(value: float) -> str:
    """A setting, as somebody typed it: 0.05, 1."""
    return f"{value:.10g}"


def measured(value: float | None, unit: str = "", *, signed: bool = False) -> str:
    """A value with its unit: "31.2 %", "412 ms". Signed, it is a difference: "+1.8 pp"."""
    if value is None or not isfinite(value):
        return NOTHING
    text = f"{fixed(abs(value) * 100)} {'pp' if signed else '%'}" if unit == SHARE else number(abs(value))
    sign = "" if text.strip("0. %p") == "" else "+" if signed and value > 0 else MINUS if value < 0 else ""
    if unit == SHARE:
        return f"{sign}{text}"
    return f"{sign}{text}{' ' + unit if unit else ''}"


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """Of a difference: "+0.4 to +3.1 pp"."""
    if low is None or high is None or not (isfinite(low) and isfinite(high)):
        return NOTHING
    tail = "pp" if unit == SHARE else unit
    ends = (measured(end, unit, signed=True).removesuffix(tail).rstrip() for end in (low, high))
    return " to ".join(ends) + (f" {tail}" if tail else "")


def fixed(value: float) -> str:
    """Two decimals where they matter, one or none where they do not."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """A share: "5 %"."""
    if value is None or not isfinite(value):
        return NOTHING
    return f"{value * 100:.3g} %" if abs(value) < 9.995 else f"{value * 100:,.0f} %"


def chance(value: float | None) -> str:
    """A p-value: "0.031", "< 0.001"."""
    if value is None or not isfinite(value):
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def moment(value: datetime | None) -> str:
    """In UTC, to the minute."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if value else NOTHING


def made(value: datetime) -> str:
    """A manifest's moment; the beginning of time is what an imported adapter has."""
    return moment(value) if value.timestamp() > 0 else NOTHING


def short(digest: str) -> str:
    """A digest's beginning."""
    return digest.removeprefix("sha256:")[:12]


def ago(value: datetime | None) -> str:
    """How long since: "3 min ago"."""
    return f"{span(datetime.now(UTC) - value)} ago" if value else NOTHING


def span(value: timedelta) -> str:
    """A duration in its largest unit."""
    seconds = max(0.0, value.total_seconds())
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def plural(count: int, one: str, many: str | None = None) -> str:
    """ "1 unit", "2,400 units"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def spaced(name: object) -> str:
    """A name from the code as words: "roll_back" becomes "roll back"."""
    return str(name).replace("_", " ")


FILTERS: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (number, plain, measured, interval, percent, chance, moment, made, short, ago, span, plural, spaced)
}
