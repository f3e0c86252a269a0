"""A verdict as JSON: whole, or as short as a plot and an audit row want it. It judges nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gateway.findings import Figure, Verdict

_SHOWN = (
    *("metric", "variant", "unit", "share", "units", "control_units", "value", "control"),
    *("difference", "low", "high", "limit"),
)


def whole(verdict: Verdict) -> dict[str, Any]:
    """All of it."""
    return asdict(verdict)


def brief(verdict: Verdict) -> dict[str, Any]:
    """Its word and sentence, and per candidate and metric where the difference lies.

    No segments, no diagnostics: about 300 bytes a figure.
    """
    return {
        "word": verdict.word.value,
        "sentence": verdict.sentence,
        "variant": verdict.variant,
        "guardrail": verdict.guardrail,
        "blocks": [block.value for block in verdict.blocks],
        "units": dict(verdict.exposed),
        "moved": verdict.moved,
        "sample_ratio_p": verdict.sample_ratio.p,
        "figures": [_figure(figure) for figure in verdict.figures],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    shown = {name: getattr(figure, name) for name in _SHOWN}
    return {**shown, "role": figure.role.value, "status": figure.status.value}
