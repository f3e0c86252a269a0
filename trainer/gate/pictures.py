"""The report's pictures, as SVG to put into a page: no scripts, and the page's own colour for ink.

matplotlib draws; what it writes is stripped of its document head, and its ink becomes `currentColor`, so that a picture
is legible on light and dark alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.data.pictures import svg
from trainer.gate.policy import Compared, word

if TYPE_CHECKING:
    from markupsafe import Markup

    from trainer.gate.measuring import Measured

_INK = "#0a0b0c"
"""Nobody else draws in this colour: it is replaced by the page's."""
_COLOURS = {"base": "#8a8f98", "incumbent": "#3b82f6", "candidate": "#e8590c"}
_SHARES = frozenset(
    {
        *("exact_match", "token_f1", "rouge_l", "json_valid", "accuracy", "macro_precision", "macro_recall"),
        *("macro_f1", "roc_auc", "preference_accuracy", "thumbs_auc", "refusals", "repetition"),
    }
)
"""Figures of 0 to 1, which can share an axis."""


def forest(compared: Sequence[Compared], confidence: float) -> Markup:
    """Each difference with its interval, on one axis."""
    shown = [one for one in compared if one.figure in _SHARES and np.isfinite(one.difference.low)][::-1]
    if not shown:
        return _nothing()
    figure, axes = _figure(1.0 + 0.28 * len(shown))
    for place, one in enumerate(shown):
        between = one.difference
        axes.plot([between.low, between.high], [place, place], color=_COLOURS["incumbent"], linewidth=3, alpha=0.6)
        axes.plot([between.value], [place], "o", color=_COLOURS["candidate"], markersize=6)
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.set_yticks(range(len(shown)), [word(one.figure) for one in shown])
    axes.set_xlabel(f"candidate's difference, each end with {confidence * 100:.3g} % confidence")
    return _svg(figure)


def lengths(of: Mapping[str, Sequence[int]]) -> Markup:
    """How long the answers are, by version."""
    most = max((max(values, default=0) for values in of.values()), default=0)
    if not most:
        return _nothing()
    figure, axes = _figure(2.6)
    for name, values in of.items():
        style: Any = {"histtype": "step", "linewidth": 1.8, "label": name, "color": _COLOURS.get(name)}
        axes.hist(values, bins=np.linspace(0, most + 1, 31), **style)
    axes.set_xlabel("characters of an answer")
    axes.set_ylabel("rows")
    axes.legend(frameon=False, labelcolor=_INK)
    return _svg(figure)


def losses(measured: Measured, candidate: str, other: str) -> Markup:
    """Each row's loss with both versions: below the diagonal the candidate knows it better."""
    pairs = zip(measured.versions[other], measured.versions[candidate], strict=True)
    points = np.array([(-np.mean(a.logprobs), -np.mean(b.logprobs)) for a, b in pairs if a.logprobs and b.logprobs])
    if not len(points):
        return _nothing()
    figure, axes = _figure(3.4)
    most = float(points.max())
    axes.plot([0, most], [0, most], color=_INK, linewidth=0.8)
    axes.plot(points[:, 0], points[:, 1], "o", color=_COLOURS["candidate"], markersize=4, alpha=0.6)
    axes.set_xlabel(f"loss of a row with the {other}, nats a token")
    axes.set_ylabel("with the candidate")
    return _svg(figure)


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # without pyplot: no display, and nothing global

    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.add_subplot()
    for side in axes.spines.values():
        side.set_color(_INK)
        side.set_linewidth(0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    return figure, axes


def _svg(figure: Any) -> Markup:
    from markupsafe import Markup

    drawn = svg(figure, transparent=True).decode()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    return Markup(drawn.replace(_INK, "currentColor"))  # noqa: S704  # matplotlib's, of our own numbers and words


def _nothing() -> Markup:
    from markupsafe import Markup

    return Markup("")
