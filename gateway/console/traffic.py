"""Live traffic: how much, how fast and how well, by alias and variant, for the last hour or day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway.console.here import Desk, Here, Place
from gateway.console.plots import Line, Plot
from gateway.console.recent import DAY, HOUR, Recent, View, Window
from gateway.console.words import SHARE
from gateway.store.live import Step, Traffic

router = APIRouter()
PLACE = Place("traffic", "Live traffic")

WINDOWS = {"hour": HOUR, "day": DAY}
LINES = 4
"""Variants with a line of their own; the others share one."""
OTHERS = "others"
LEAST = timedelta(seconds=20)
"""Of a step that is not over, to be drawn."""

Figure = Callable[[Traffic, float], float | None]
"""Of a step, and its length in minutes."""

Span = Annotated[Literal["hour", "day"], Query(alias="window")]
Name = Annotated[str, Query(max_length=64)]


@dataclass(slots=True)
class Row:
    """One variant of an alias over the whole window."""

    alias: str
    variant: str
    minutes: float
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def per_minute(self) -> float:
        return self.traffic.requests / self.minutes

    @property
    def tokens_per_second(self) -> float:
        """Those of the answers."""
        return self.traffic.output_tokens / self.minutes / 60

    @property
    def errors(self) -> float:
        """The share of requests that the engine or the gateway failed."""
        return self.traffic.errors / max(1, self.traffic.requests)

    @property
    def refused(self) -> float:
        """The share of requests that were the client's mistake."""
        return self.traffic.refused / max(1, self.traffic.requests)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A plot, or the sentence that stands where there is nothing to draw."""

    plot: Plot
    nothing: str

    @property
    def drawable(self) -> bool:
        return any(value is not None for line in self.plot.lines for value in line.mid)


@router.get("/t/{tenant}/traffic")
async def index(here: Here, window: Span = "hour", alias: Name = "", paused: bool = False) -> Response:
    return here.page("traffic.jinja", title="Live traffic", **await _shown(here, window, alias, paused))


@router.get("/t/{tenant}/traffic/now")
async def now(here: Here, window: Span = "hour", alias: Name = "") -> Response:
    """The figures alone, for htmx."""
    return here.part("traffic_now.jinja", **await _shown(here, window, alias, False))


async def _shown(here: Desk, window: str, alias: str, paused: bool) -> dict[str, Any]:
    recent: Recent = here.request.app.state.recent
    chosen = WINDOWS[window]
    view = await recent.read(here.tenant, chosen)
    rows = totals(view, chosen)
    busiest = max(rows, key=lambda row: row.traffic.requests, default=None)
    shown = alias or (busiest.alias if busiest is not None else "")
    aliases = sorted({row.alias for row in rows} | ({shown} if shown else set()))
    return {
        "window": window,
        "paused": paused,
        "rows": rows,
        "aliases": aliases,
        "alias": shown,
        "missing": view.missing * chosen.step,
        "plots": plots(view, chosen, shown) if rows else [],
    }


def totals(view: View, window: Window) -> list[Row]:
    """By alias and variant, in the order of their names, however the database came upon them."""
    rows: dict[tuple[str, str], Row] = {}
    minutes = window.length.total_seconds() / 60
    for step in view.steps:
        for key, traffic in step.items():
            rows.setdefault(key, Row(*key, minutes)).traffic.add(traffic)
    return [rows[key] for key in sorted(rows)]


def plots(view: View, window: Window, alias: str) -> list[Drawn]:
    """One alias's rate, speed, tokens and errors, a line for each variant."""
    names = [row.variant for row in totals(view, window) if row.alias == alias]
    lines = [{variant} for variant in names[:LINES]] + ([set(names[LINES:])] if len(names) > LINES else [])
    at, steps, elapsed = view.at, view.steps, view.now - view.at[-1]
    if elapsed < LEAST:  # too short for a rate
        at, steps = at[:-1], steps[:-1]
    minutes = [min(window.step, view.now - one).total_seconds() / 60 for one in at]

    def drawn(name: str, title: str, unit: str, figure: Figure, nothing: str = "") -> Drawn:
        those = [
            Line(min(ones) if len(ones) == 1 else OTHERS, _line(steps, minutes, alias, ones, figure), colour=colour)
            for colour, ones in enumerate(lines)
        ]
        plot = Plot(f"traffic-{name}", f"{title}, {alias}", at, those, metric_unit=unit, zero=True)
        return Drawn(plot, nothing or "No requests in a whole step yet.")

    return [
        drawn("rate", "Requests", "requests/min", lambda one, minutes: one.requests / minutes),
        drawn("ttft", "Median time to the first token", "ms", lambda one, _: one.ttft_ms(0.5), "Nothing was streamed."),
        drawn("tokens", "Tokens generated", "tokens/s", lambda one, minutes: one.output_tokens / minutes / 60),
        drawn("errors", "Failed requests", SHARE, lambda one, _: one.errors / one.requests if one.requests else None),
    ]


def _line(
    steps: Sequence[Step], minutes: Sequence[float], alias: str, variants: set[str], figure: Figure
) -> list[float | None]:
    points = []
    for step, length in zip(steps, minutes, strict=True):
        traffic = Traffic()
        for variant in variants:
            if (alias, variant) in step:
                traffic.add(step[alias, variant])
        points.append(figure(traffic, length))
    return points
