"""Reading what an experiment's units come to together: a few reads of totals, whatever the traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from gateway.domain import Metric, MetricKind
from gateway.experiment import Evidence, Experiment, Sums
from gateway.store.database import Database

EXPOSED = ""
"""The name under which exposed units are counted."""

_SUMS = tuple(one.name for one in fields(Sums))
_STATE = "SELECT generation, recipe, building IS NOT NULL AS building FROM tallied WHERE experiment = $1"
_TOTALS = f"""
SELECT metric, epoch, variant, segment, units, {", ".join(f"{name}::float8" for name in _SUMS[1:])}
FROM totals WHERE experiment = $1 AND generation = $2 AND units > 0 AND (metric = ANY ($3) OR starts_with(metric, $4))
"""  # noqa: S608 — built from constants of this file
_RATE = """
SELECT sum(units)::float8 / greatest(extract(epoch FROM now() - min(hour)) / 86400, 1 / 24.0)::float8 FROM arrivals
WHERE experiment = $1 AND generation = $2 AND units > 0 AND hour BETWEEN now() - interval '24 hours' AND now()
"""


async def evidence(
    database: Database, experiment: Experiment, metrics: Mapping[str, Metric], *, prefix: str | None = None
) -> Evidence:
    """Of `metrics`, and of the figures whose name begins with `prefix`. Of an experiment that has not been built yet,
    there is none. Segments hold the primary metric only, if it is among them."""
    async with database.transaction(picture=True) as connection:
        state = await connection.fetchrow(_STATE, experiment.id)
        if state is None or not state["recipe"]:
            return Evidence()
        names = [EXPOSED, *metrics]
        rows = await connection.fetch(_TOTALS, experiment.id, state["generation"], names, prefix or "\x01")
        rate = await connection.fetchval(_RATE, experiment.id, state["generation"])
    parts: dict[str, list[Any]] = {}
    for row in rows:
        parts.setdefault(row["segment"], []).append(row)
    whole = parts.pop("", [])
    past = experiment.plan.cuped_days > 0
    found = _evidence(whole, metrics, past=past)
    moved = sum(int(row["n"]) for row in whole if row["metric"] == EXPOSED)
    primary = {name: metric for name, metric in metrics.items() if name == experiment.plan.primary}
    segments = {name: _evidence(rows, primary, past=past) for name, rows in sorted(parts.items())}
    return replace(found, segments=segments, moved=moved, units_per_day=rate)


async def being_built(database: Database, experiment_id: str) -> bool:
    """Whether all of it is being worked out anew, or has never been."""
    async with database.transaction() as connection:
        row = await connection.fetchrow(_STATE, experiment_id)
    return row is not None and (row["building"] or not row["recipe"])


def _evidence(rows: Sequence[Any], metrics: Mapping[str, Metric], *, past: bool) -> Evidence:
    exposed = {(row["epoch"], row["variant"]): row["units"] for row in rows if row["metric"] == EXPOSED}
    sums = {
        (row["metric"], row["epoch"], row["variant"]): Sums(*(row[name] for name in _SUMS))
        for row in rows
        if row["metric"] != EXPOSED
    }
    for name, metric in metrics.items():
        if metric.kind is MetricKind.COUNT:
            for (epoch, variant), units in exposed.items():
                key = (name, epoch, variant)
                sums[key] = _whole(sums.get(key, Sums()), units, past=past)
    return Evidence(exposed, sums)


def _whole(known: Sums, units: int, *, past: bool) -> Sums:
    """A count of all exposed units: those of whom nothing was counted have n = 1 (and m = 1), and zeros."""
    silent = units - known.units
    known = replace(known, units=units, n=known.n + silent, nn=known.nn + silent)
    if past:
        known = replace(known, m=known.m + silent, nm=known.nm + silent, mm=known.mm + silent)
    return known
