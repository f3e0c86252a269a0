"""The story's end: what each round learnt and what the gate found, as a table, as claims that hold or do not, on disk.

It reads pages and figures only; whatever the gate said is printed, a refusal too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests import report
from loadtests.banking.questions import Plan, Pools

FIGURE = "macro_f1"
WIDE = 0.3
"""How much more macro-F1 than the base the supervised round must have at least, by the interval's lower end."""
_HEAD = ("round", "version", "learnt from", "training", "against", "its macro-F1", "macro-F1", "difference", "verdict")
_TITLES = {
    "sft": "SFT on written examples",
    "kto": "KTO on thumbs",
    "poisoned": "KTO, 5 % of thumbs flipped by three",
    "dpo": "DPO on preferences",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that must hold, and what was seen."""

    text: str
    held: bool
    seen: str


def claims(pages: Mapping[str, Any]) -> list[Claim]:
    """What the issue asks to be shown."""
    sft = pages["sft"]
    low = sft["figures"].get(f"difference.{FIGURE}.low", 0.0)
    found = [Claim(f"SFT beats the base by {WIDE} macro-F1 or more", low >= WIDE, difference(sft))]
    for name in ("kto", "dpo"):
        page = pages[name]
        text = f"{_TITLES[name]} improves on {page['compared_with']}, or is refused"
        found.append(Claim(text, page["verdict"] != "undecided", f"{page['verdict']}; {difference(page)}"))
    page = pages["poisoned"]
    harmless = page["figures"].get(f"difference.{FIGURE}.low", -1.0) > 0
    held = page["verdict"] == "refused" or harmless
    found.append(
        Claim("the poisoned round is refused or harmless", held, f"{page['verdict']}; {difference(page)}"),
    )
    return found


def difference(page: Mapping[str, Any]) -> str:
    """Candidate less what it was compared with, with its interval."""
    figures = page["figures"]
    value, low, high = (figures.get(f"difference.{FIGURE}{end}") for end in ("", ".low", ".high"))
    if value is None:
        return "not measured"
    return f"{value:+.3f}" if low is None or high is None else f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def markdown(pages: Mapping[str, Any], pools: Pools, plan: Plan) -> str:
    """The whole report."""
    parts = ["## banking: what the trainer learns from production, each round through the gate", report.machine()]
    parts.append(
        f"banking77, {len(pools.intents)} intents: {len(pools.written)} written examples; {plan.users} customers who "
        f"ask {len(pools.thumbs)} questions for thumbs and {len(pools.pairs)} for preferences; "
        f"{len(pools.test)} questions of test.csv for the gate. Nothing was tuned on the latter."
    )
    parts.append(report.table(_HEAD, [_line(name, pages[name]) for name in _TITLES if name in pages]))
    parts.append("\n".join(f"- {pages[name]['note']}" for name in ("thumbs", "pairs") if name in pages))
    if "plan" in pages:
        parts.append(
            "The planner, before the first round of feedback:\n\n```\n" + pages["plan"]["text"].strip() + "\n```"
        )
    marks = {True: "holds", False: "DOES NOT HOLD"}
    parts.append("\n".join(f"- {one.text}: {marks[one.held]} ({one.seen})" for one in claims(pages)))
    return "\n\n".join(part for part in parts if part) + "\n"


def save(text: str, pages: Mapping[str, Any]) -> Path:
    """`results/<time>-banking.{md,json}`; returns the path without its suffix."""
    return report.save("banking", text, {"pages": pages})


def _line(name: str, page: Mapping[str, Any]) -> list[str]:
    figures, lineage = page["figures"], page["lineage"]
    learnt = f"{lineage['examples']} rows" + (f", {lineage['feedback']} live" if lineage["feedback"] else "")
    there = figures.get(f"incumbent.{FIGURE}", figures.get(f"base.{FIGURE}"))
    cells = [_TITLES[name], page["ref"], learnt, _cost(page), page["compared_with"] or "-"]
    return [*cells, _share(there), _share(figures.get(f"candidate.{FIGURE}")), difference(page), page["verdict"]]


def _cost(page: Mapping[str, Any]) -> str:
    """What the training process itself took, as its result has it."""
    if page.get("seconds") is None:
        return "-"
    memory = f", {page['peak_memory_bytes'] / 2**30:.1f} GiB" if page.get("peak_memory_bytes") else ""
    return f"{page['seconds']:.0f} s{memory}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
