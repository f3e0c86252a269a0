"""The data card's pictures, drawn by matplotlib from the card's figures. It knows the card and nothing else."""

from __future__ import annotations

import io
from typing import Any

_BLUE, _GREY, _RED = "#3b6ea5", "#9aa3ab", "#b5413a"
_NAME = 32


def drawn(told: dict[str, Any]) -> dict[str, bytes]:
    """File name → SVG. The same card gives the same bytes."""
    rows, lengths, labels = told["rows"], told["lengths"], told["labels"]
    found = {"split.svg": _bars({k: rows[k] for k in ("train", "held_out", "test")}, rows["left_out"], "rows")}
    if lengths["histogram"]:
        found["lengths.svg"] = _lengths(lengths)
    if labels["answers"]:
        found["answers.svg"] = _bars(labels["answers"], {}, "rows")
    elif labels["judged"]:
        found["answers.svg"] = _bars(labels["judged"], {}, "rows")
    return found


def _bars(kept: dict[str, int], left: dict[str, int], unit: str) -> bytes:
    from matplotlib.figure import Figure

    names = [*kept, *left]
    figure = Figure(figsize=(7, 0.6 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots()
    shown = [name if len(name) <= _NAME else f"{name[: _NAME - 1]}…" for name in names]
    places = range(len(names))
    bars = axes.barh(places, [*kept.values(), *left.values()], color=[_BLUE] * len(kept) + [_GREY] * len(left))
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.set_yticks(places, [name.replace("$", r"\$") for name in shown], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(unit)
    return svg(figure)


def _lengths(lengths: dict[str, Any]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    begins = [int(edge) for edge in lengths["histogram"]]
    width = begins[1] - begins[0] if len(begins) > 1 else 1
    axes.bar(begins, lengths["histogram"].values(), width=width, align="edge", color=_BLUE, edgecolor="white")
    if lengths["context"] <= 4 * (begins[-1] + width):
        axes.axvline(lengths["context"], color=_RED)
        axes.annotate(f" context {lengths['context']}", (lengths["context"], axes.get_ylim()[1]), va="top", color=_RED)
    axes.set_xlabel(lengths["unit"])
    axes.set_ylabel("rows")
    return svg(figure)


def svg(figure: Any, *, transparent: bool = False) -> bytes:
    """A figure of matplotlib's as a document. Its text stays text, and equal figures are equal bytes."""
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "tuneloop", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None})
    return content.getvalue()
