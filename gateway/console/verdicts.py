"""A kept verdict as a page shows it: read back from JSON, its badges, and its looks as plots. It judges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from gateway.console.plots import Line, Plot
from gateway.console.words import SHARE
from gateway.findings import (
    Block,
    Diagnostics,
    FeedbackCoverage,
    Figure,
    Role,
    SampleRatio,
    Segment,
    Status,
    Verdict,
    Word,
)
from gateway.store.looks import Look

KINDS = {
    Word.SHIP: "good",
    Word.ROLL_BACK: "bad",
    Word.KEEP_RUNNING: "busy",
    Word.BLOCKED: "warn",
    Status.BETTER: "good",
    Status.HELD: "good",
    Status.WORSE: "bad",
    Status.BREACHED: "bad",
    Status.UNCLEAR: "",
}
"""The colour that repeats a word (parts.badge)."""

_MEANING = {
    Role.PRIMARY: "decides",
    Role.SECONDARY: "is also looked at",
    Role.GUARDRAIL: "must not get worse by more than its margin",
}


def verdict_of(kept: Mapping[str, Any]) -> Verdict:
    """The inverse of `evaluation.figures.whole`. What an older gateway did not write yet has its default."""
    return Verdict(
        **_known(Verdict, kept)
        | {
            "word": Word(kept["word"]),
            "reasons": tuple(kept["reasons"]),
            "figures": tuple(map(_figure, kept["figures"])),
            "sample_ratio": SampleRatio(**_known(SampleRatio, kept["sample_ratio"])),
            "coverage": _coverage(kept.get("coverage")),
            "blocks": tuple(map(Block, kept.get("blocks", ()))),
            "segments": tuple(
                Segment(one["name"], tuple(map(_figure, one["figures"]))) for one in kept.get("segments", ())
            ),
        }
    )


def _known(kind: Any, kept: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in kept.items() if name in names}


def _figure(kept: Mapping[str, Any]) -> Figure:
    diagnostics = kept.get("diagnostics")
    changed = {
        "role": Role(kept["role"]),
        "status": Status(kept["status"]),
        "diagnostics": Diagnostics(**_known(Diagnostics, diagnostics)) if diagnostics else None,
    }
    return Figure(**_known(Figure, kept) | changed)


def _coverage(kept: Mapping[str, Any] | None) -> FeedbackCoverage | None:
    if kept is None:
        return None
    return FeedbackCoverage(**_known(FeedbackCoverage, kept) | {"explains": tuple(kept.get("explains", ()))})


def unit_of(figure: Figure) -> str:
    """As words.py takes it."""
    return SHARE if figure.share else figure.unit


@dataclass(frozen=True, slots=True)
class Told:
    """A metric of the plan: its figures, one a candidate, and its plot."""

    metric: str
    role: Role
    unit: str
    optimize: str
    figures: tuple[Figure, ...]
    plot: Plot | None

    @property
    def meaning(self) -> str:
        """What it is there for."""
        return _MEANING[self.role]


def by_metric(verdict: Verdict, looks: Sequence[Look]) -> list[Told]:
    """In the verdict's order: the primary metric, the secondaries, the guardrails."""
    found: dict[tuple[str, Role], list[Figure]] = {}
    for figure in verdict.figures:
        found.setdefault((figure.metric, figure.role), []).append(figure)
    return [
        Told(metric, role, unit_of(first := figures[0]), first.optimize, tuple(figures), _plot(figures, looks))
        for (metric, role), figures in found.items()
    ]


def _plot(figures: Sequence[Figure], looks: Sequence[Look]) -> Plot | None:
    """The difference to the control at each kept look, with its interval; None before there is one."""
    first = figures[0]
    rows = [(look, _shown(look, first)) for look in looks]
    rows = [(look, shown) for look, shown in rows if any(one["difference"] is not None for one in shown.values())]
    if not rows:
        return None
    lines = []
    for position, figure in enumerate(figures):
        mine = [shown.get(figure.variant, {}) for _, shown in rows]
        mid, low, high = ([one.get(part) for one in mine] for part in ("difference", "low", "high"))
        bounded = any(value is not None for value in low)
        colour = 1 + position % 4
        lines.append(Line(figure.variant, mid, low if bounded else None, high if bounded else None, colour=colour))
    if first.role is Role.GUARDRAIL:
        limits = [
            next((one["limit"] for one in shown.values() if one.get("limit") is not None), None) for _, shown in rows
        ]
        if any(limit is not None for limit in limits):
            lines.append(Line("margin", limits, colour=0, dashed=True))
    better = "Above zero" if first.optimize == "max" else "Below zero"
    return Plot(
        id=f"plot-{first.role}-{first.metric}",
        title=f"{first.metric}: difference to the control",
        x=[look.at for look, _ in rows],
        lines=lines,
        metric_unit=unit_of(first),
        signed=True,
        note=f"{better}, the candidate is better. The shaded interval holds at every look at once.",
    )


def _shown(look: Look, figure: Figure) -> dict[str, dict[str, Any]]:
    """Of one look, the metric's figures by candidate."""
    return {
        one["variant"]: one
        for one in look.verdict.get("figures", ())
        if one["metric"] == figure.metric and one["role"] == figure.role
    }
