"""From the sums of an experiment to a word and a sentence. Pure: it knows no SQL, no clock, nobody who acts on it."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.domain import Metric
from gateway.experiment import Evidence, Experiment
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

__all__ = [
    "Block",
    "Diagnostics",
    "FeedbackCoverage",
    "Figure",
    "Role",
    "SampleRatio",
    "Segment",
    "Status",
    "Verdict",
    "Word",
    "judge",
]


def judge(experiment: Experiment, metrics: Mapping[str, Metric], evidence: Evidence) -> Verdict:
    """The verdict as of `evidence`. `metrics` are those that the plan names, by name; one that is missing is taken for
    a float of which more is better."""
    raise NotImplementedError
