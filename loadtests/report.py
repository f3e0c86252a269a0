"""A run as a file, as a table and as a picture: `results/<time>-<scenario>.{json,md,png}`."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.meter import Cost
from loadtests.samples import Row
from loadtests.stage import Knobs, Outcome

RESULTS = Path("results")
_HEAD = (
    *("group", "offered /s", "done /s", "failed", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99"),
    *("ITL p50", "ITL p99", "E2E p50", "E2E p99", "goodput /s", "client late p99"),
)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned for those who read it as it is."""
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
    drawn = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in (head, *lines)]
    drawn.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in drawn)


def number(value: float, digits: int = 1) -> str:
    """As a cell has it: nothing for what there is none of."""
    return "-" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def rows_table(rows: Sequence[Row]) -> str:
    """Times in milliseconds."""
    lines = []
    for one in rows:
        times = [number(value, 2) for pair in (one.ttft, one.tpot, one.itl, one.e2e) for value in pair]
        rates = [one.group, number(one.offered), number(one.done), str(one.failed)]
        lines.append([*rates, *times, number(one.goodput), number(one.late, 2)])
    return table(_HEAD, lines)


def cost_lines(cost: Cost, requests: int) -> list[str]:
    """What the server spent, in words; nothing where it runs elsewhere."""
    if not cost.seconds:
        return ["Server CPU: not measured (it does not run here)."]
    each = 1e6 / max(requests, 1)
    lines = [
        f"Server CPU per request: gateway {cost.gateway_cpu * each:,.0f} µs, "
        f"PostgreSQL {cost.cpu.get('postgres', 0) * each:,.0f} µs "
        f"({requests:,} requests, {100 * cost.gateway_cpu / cost.seconds:.0f} % of one core)."
    ]
    first, most = cost.rss_first.get("worker", 0), cost.rss_most.get("worker", 0)
    lines.append(f"Memory of the workers: {first / 2**20:,.0f} MiB before, {most / 2**20:,.0f} MiB at most.")
    if cost.lag is not None:
        lines.append(f"Event-loop lag: p50 {1e3 * cost.lag[0]:.1f} ms, p99 {1e3 * cost.lag[1]:.1f} ms.")
    if cost.probe is not None:
        p50, p99 = cost.probe
        lines.append(f"`/healthz` beside the load: p50 {1e3 * p50:.1f} ms, p99 {1e3 * p99:.1f} ms.")
    if len(cost.workers) > 1:
        shares = ", ".join(f"{100 * share:.0f} %" for share in cost.workers)
        lines.append(f"The workers' shares of the work: {shares}.")
    return lines


def markdown(scenario: str, about: str, knobs: Knobs, outcome: Outcome) -> str:
    """The whole report."""
    objective = knobs.objective
    parts = [f"## {scenario}: {about}", machine(), "Times in ms, (goodput: answered with a TTFT of at most "]
    parts[-1] += (
        f"{1e3 * objective.ttft:.0f} and a TPOT of at most {1e3 * objective.tpot:.0f}), from the intended start."
    )
    parts.append(rows_table(outcome.rows))
    parts.append("\n".join(f"- {line}" for line in cost_lines(outcome.run.cost, outcome.run.requests)))
    if outcome.figures:
        parts.append("\n".join(f"- {name}: {value}" for name, value in outcome.figures.items()))
    marks = {True: "holds", False: "DOES NOT HOLD"}
    parts.append("\n".join(f"- {one.text}: {marks[one.held]} ({one.seen})" for one in outcome.claims))
    return "\n\n".join(part for part in parts if part) + "\n"


def machine() -> str:
    """What it ran on, as far as it matters."""
    return f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, Python {platform.python_version()}."


def save(scenario: str, text: str, told: Mapping[str, Any], *, directory: Path = RESULTS) -> Path:
    """Write the JSON and the Markdown; returns the path without its suffix, for the picture."""
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    stem = directory / f"{now:%Y%m%dT%H%M%S}-{scenario}"
    stem.with_suffix(".md").write_text(text)
    whole = {"scenario": scenario, "at": now.isoformat(), "machine": machine(), **told}
    stem.with_suffix(".json").write_text(json.dumps(_clean(whole), indent=1) + "\n")
    return stem


def told(knobs: Knobs, outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON has it; keys stay out."""
    shown = {name: value for name, value in asdict(knobs).items() if name not in ("key", "model")}
    return {
        "knobs": shown,
        "rows": [asdict(one) for one in outcome.rows],
        "cost": asdict(outcome.run.cost),
        "requests": outcome.run.requests,
        "figures": outcome.figures,
        "claims": [asdict(one) for one in outcome.claims],
    }


def _clean(value: Any) -> Any:
    """NaN is no JSON."""
    if isinstance(value, float):
        return None if math.isnan(value) or math.isinf(value) else round(value, 6)
    if isinstance(value, Mapping):
        return {str(key): _clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    return value
