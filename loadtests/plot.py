"""A run as a picture: what was answered each second, how long it took, and how even the streams were.

matplotlib is an extra (`pip install tuneloop[loadtests]`); without it there is no picture, and the run is as good.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loadtests.samples import GOOD, Problem
from loadtests.stage import Outcome


def draw(outcome: Outcome, title: str, file: Path) -> bool:
    """Write a PNG; False without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    samples = outcome.run.samples
    figure, (rates, times, gaps) = pyplot.subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)
    good = samples["problem"] == Problem.NONE
    seconds = np.arange(0, max(2.0, float(np.nanmax(samples["end"], initial=1.0)) + 1))
    for group, places in outcome.groups.items():
        mine = good & np.isin(samples["ask"], places)
        rates.plot(seconds[:-1], np.histogram(samples["end"][mine], bins=seconds)[0], label=group)
        ttft = np.sort(1e3 * (samples["first"] - samples["intended"])[mine])
        ttft = ttft[~np.isnan(ttft)]
        times.plot(np.maximum(ttft, 1e-2), np.linspace(0, 1, len(ttft)), label=group)
        own = np.sort(1e3 * samples["gap"][np.isin(samples["gap_ask"], places)])
        if len(own):
            gaps.plot(np.maximum(own, 1e-2), np.linspace(0, 1, len(own)), label=group)
    bad = ~np.isin(samples["problem"], GOOD)
    if bad.any():
        rates.plot(seconds[:-1], np.histogram(samples["end"][bad], bins=seconds)[0], "r:", label="failed")
    for axes, name, unit in ((rates, "answered in each second", "s"), (times, "TTFT", "ms"), (gaps, "ITL", "ms")):
        axes.set_title(name)
        axes.set_xlabel(unit)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    times.set_xscale("log")
    gaps.set_xscale("log")
    figure.suptitle(title)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
    return True
