"""What tallies must come to, in plain Python from the raw rows; and what the database has, to be compared with it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from rapidfuzz.distance import Levenshtein

from gateway.domain import Unit
from gateway.experiment import Experiment, Sums
from gateway.feedback.segments import LONG, SHORT
from gateway.store.automatic import Price
from gateway.store.database import Database

Figures = dict[str, tuple[Decimal, ...]]
LETTERS = ("n", "s", "m", "x")


@dataclass(frozen=True, slots=True)
class Tally:
    """One unit, as a row of `tallies`; a figure is (n, s, m, x)."""

    variant: str
    epoch: int
    first: str
    moved: bool
    segments: frozenset[str]
    figures: Mapping[str, tuple[Decimal, ...]]


@dataclass(frozen=True, slots=True)
class Whole:
    """All of an experiment: its units, and the sums over them by (metric, epoch, variant, segment)."""

    units: Mapping[str, Tally]
    totals: Mapping[tuple[str, int, str, str], tuple[Decimal, ...]]


@dataclass(frozen=True, slots=True)
class Raw:
    """The rows that count, those of `inferences` in their order."""

    asked: Sequence[Mapping[str, Any]]
    said: Sequence[Mapping[str, Any]]
    good: Mapping[str, str]


async def raw(database: Database, tenant: str) -> Raw:
    async with database.transaction() as connection:
        asked = await connection.fetch(
            "SELECT * FROM inferences WHERE tenant = $1 AND shadow_of IS NULL AND reason <> 'targeting_match'"
            " ORDER BY created_at, id",
            tenant,
        )
        said = await connection.fetch("SELECT * FROM feedback WHERE tenant = $1 ORDER BY seq", tenant)
        metrics = await connection.fetch("SELECT name, optimize FROM metrics WHERE tenant = $1", tenant)
    return Raw(list(map(dict, asked)), list(map(dict, said)), {row["name"]: row["optimize"] for row in metrics})


async def tallied(database: Database, experiment: Experiment) -> Whole:
    """The generation that is read."""
    async with database.transaction(picture=True) as connection:
        generation = await connection.fetchval("SELECT generation FROM tallied WHERE experiment = $1", experiment.id)
        both = (experiment.id, generation)
        units = await connection.fetch("SELECT * FROM tallies WHERE experiment = $1 AND generation = $2", *both)
        totals = await connection.fetch("SELECT * FROM totals WHERE experiment = $1 AND generation = $2", *both)
    columns = [one.name for one in fields(Sums)]
    sums = {
        (row["metric"], row["epoch"], row["variant"], row["segment"]): tuple(Decimal(row[name]) for name in columns)
        for row in totals
    }
    assert all(not any(row) for row in sums.values() if row[0] == 0), "what nobody has left sums to exactly nothing"
    return Whole({row["unit"]: _tally(row) for row in units}, {key: row for key, row in sums.items() if row[0]})


def _tally(row: Mapping[str, Any]) -> Tally:
    figures = {
        name: tuple(map(Decimal, (*values, 0, 0)[:4]))
        for name, values in json.loads(row["figures"], parse_float=Decimal).items()
    }
    return Tally(row["variant"], row["epoch"], row["first"], row["moved"], frozenset(row["segments"]), figures)


def modelled(rows: Raw, experiment: Experiment, *, price: Price | None, ratios: Mapping[str, tuple[str, str]]) -> Whole:
    mine = [row for row in rows.asked if row["experiment"] == experiment.id]
    units: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    owners: dict[str, Mapping[str, Any]] = {}
    for row in mine:
        units[_unit(experiment, row)].append(row)
        if row["episode"] is not None:
            owners.setdefault(row["episode"], row)
    found = {}
    for unit, all_of_it in units.items():
        first = all_of_it[0]
        home = [row for row in all_of_it if row["variant"] == first["variant"]]
        owned = {episode for episode, row in owners.items() if any(row is one for one in home)}
        now = _figures(home, rows, owned, price, ratios, until=None)
        now |= _traffic(home)
        past: Figures = {}
        days = experiment.plan.cuped_days if experiment.unit is Unit.TARGETING_KEY else 0
        if days:
            began = first["created_at"]
            before = [
                row
                for row in rows.asked
                if (row["unit"], row["alias"]) == (unit, experiment.alias)
                and began - timedelta(days=days) <= row["created_at"] < began
            ]
            past = _figures(before, rows, set(), price, ratios, until=began)
        revisions = sorted(epoch.revision for epoch in experiment.epochs)
        found[unit] = Tally(
            first["variant"],
            max(0, sum(revision <= first["alias_revision"] for revision in revisions) - 1),
            first["id"],
            any(row["variant"] != first["variant"] for row in all_of_it),
            _segments(first),
            _with_past(now, past, counts={one["metric"] for one in rows.said if one["kind"] == "count"}, days=days),
        )
    return Whole(found, _totals(found, experiment.plan.primary))


def _unit(experiment: Experiment, row: Mapping[str, Any]) -> str:
    if experiment.unit is Unit.TARGETING_KEY:
        return str(row["unit"])
    if experiment.unit is Unit.EPISODE:
        return str(row["episode"] or row["id"])
    return str(row["id"])


def _segments(first: Mapping[str, Any]) -> frozenset[str]:
    tokens, found = first["input_tokens"], set()
    if tokens is not None:
        found.add(f"prompt:{'short' if tokens < SHORT else 'medium' if tokens < LONG else 'long'}")
    if first["messages"] is not None:
        found.add("language:unknown")  # the machine's prompts are too short to tell
    plan = json.loads(first["params"]).get("metadata", {}).get("plan")
    return frozenset((*found, f"tag:plan={plan}") if plan else found)


def _latest(said: Iterable[Mapping[str, Any]], about: str) -> list[Mapping[str, Any]]:
    last = {(one[about], one["metric"], one["source"]): one for one in said if one["number"] is not None}
    return list(last.values())


def _figures(
    home: Sequence[Mapping[str, Any]],
    rows: Raw,
    owned: set[str],
    price: Price | None,
    ratios: Mapping[str, tuple[str, str]],
    *,
    until: datetime | None,
) -> Figures:
    # long because: each metric in a line or two, as the docs have them.
    found: dict[str, tuple[Any, Any]] = {}
    ids = {row["id"] for row in home}
    said = [one for one in rows.said if one["inference_id"] in ids and (until is None or one["created_at"] < until)]
    judged = _latest(said, "inference_id")
    judged += _latest((one for one in rows.said if one["episode_id"] in owned), "episode_id")
    if home:
        failed = [row for row in home if row["outcome"] not in ("ok", "client_error", "disconnected")]
        found["error_rate"] = (len(home), len(failed))
        found["feedback_rate"] = (len(home), len({one["inference_id"] for one in said}))
    for name, column, counted in (
        ("ttft", "ttft_ms", home),
        ("latency", "duration_ms", [row for row in home if row["outcome"] == "ok"]),
        ("output_tokens", "output_tokens", home),
    ):
        values = [Decimal(str(row[column])) for row in counted if row[column] is not None]
        found[name] = (len(values), sum(values))
    answers = [row["answer"] for row in home if row["answer"] is not None]
    found["refusal_rate"] = (len(answers), sum(answer.startswith("I'm sorry") for answer in answers))
    kept = [row for row in home if row["messages"] is not None]
    again = sum(_asked_again(row, kept[at + 1 :]) for at, row in enumerate(kept))
    found["regeneration_rate"] = (len(kept), again)
    if price and home and all(None not in (row["input_tokens"], row["output_tokens"]) for row in home):
        costs = [row["input_tokens"] * price.input + row["output_tokens"] * price.output for row in home]
        found["cost"] = (len(home), sum(costs))
    thumbs = [one for one in judged if one["kind"] == "boolean"]
    good = [one for one in thumbs if (one["number"] == 1) == (rows.good[one["metric"]] == "max")]
    found["thumbs_up_rate"] = (len(thumbs), len(good))
    if until is None:
        found["edit_distance"] = _edits(home, said)
    for metric in {one["metric"] for one in judged}:
        mine = [one for one in judged if one["metric"] == metric]
        n = 1 if mine[0]["kind"] == "count" else len(mine)
        found[metric] = (n, sum(Decimal(str(one["number"])) for one in mine))
    there = {name: pair for name, pair in found.items() if pair[0]}
    for name, (numerator, denominator) in ratios.items():
        if numerator in there or denominator in there:
            there[name] = (there.get(denominator, (0, 0))[1], there.get(numerator, (0, 0))[1])
    return {name: (Decimal(n), Decimal(s)) for name, (n, s) in there.items()}


def _asked_again(row: Mapping[str, Any], later: Sequence[Mapping[str, Any]]) -> bool:
    same = next((one for one in later if one["messages"] == row["messages"]), None)
    return same is not None and same["created_at"] - row["created_at"] <= timedelta(minutes=10)


def _edits(home: Sequence[Mapping[str, Any]], said: Sequence[Mapping[str, Any]]) -> tuple[int, Decimal]:
    ideals = {one["inference_id"]: one["correction"] for one in said if one["correction"] is not None}
    distances = [
        Decimal(f"{Levenshtein.normalized_distance(row['answer'], ideals[row['id']]):.6f}")
        for row in home
        if row["id"] in ideals and row["answer"] is not None
    ]
    return len(distances), sum(distances, Decimal())


def _traffic(home: Sequence[Mapping[str, Any]]) -> Figures:
    found: dict[str, tuple[Any, Any]] = {}
    tokens = [row["input_tokens"] for row in home if row["input_tokens"] is not None]
    found["#input_tokens"] = (len(tokens), sum(tokens))
    found["#disconnected"] = (sum(row["outcome"] == "disconnected" for row in home), 0)
    for row in home:
        if row["served"] != row["assigned"]:
            name = f"#served {row['served'] or ''}"
            found[name] = (found.get(name, (0, 0))[0] + 1, 0)
    return {name: (Decimal(n), Decimal(s)) for name, (n, s) in found.items() if n}


def _with_past(now: Figures, past: Figures, *, counts: set[str], days: int) -> Figures:
    zero, one = (Decimal(0), Decimal(0)), Decimal(1)
    found = {name: (*pair, *past.get(name, zero)) for name, pair in now.items()}
    if days:
        for name in counts & (set(now) | set(past)):
            found[name] = (one, now.get(name, zero)[1], one, past.get(name, zero)[1])
    return found


def _totals(units: Mapping[str, Tally], primary: str | None) -> dict[tuple[str, int, str, str], tuple[Decimal, ...]]:
    pairs = [(a, b) for a in range(4) for b in range(a, 4)]
    found: dict[tuple[str, int, str, str], tuple[Decimal, ...]] = {}
    for tally in units.values():
        figures = {**tally.figures, "": (Decimal(tally.moved), Decimal(0), Decimal(0), Decimal(0))}
        for name, values in figures.items():
            row = (Decimal(1), *values, *(values[a] * values[b] for a, b in pairs))
            for segment in ("", *tally.segments) if name in ("", primary) else ("",):
                key = (name, tally.epoch, tally.variant, segment)
                before = found.get(key, (Decimal(0),) * len(row))
                found[key] = tuple(a + b for a, b in zip(before, row, strict=True))
    return found
