"""What an experiment's figures come to, frozen: the verdict in words, and every number that it rests on.

Nouns only, below the rooms that pass them on (control acts on a verdict, the console shows it). How they come about is
`feedback/verdict.py`'s. Every number is finite or None, so that `dataclasses.asdict` of it is JSON as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Word(StrEnum):
    """What to do with the experiment."""

    SHIP = "ship"  # a candidate's primary metric is better, and each of its guardrails is proven to hold
    ROLL_BACK = "roll_back"  # a guardrail is breached, or the primary metric of every candidate is worse
    KEEP_RUNNING = "keep_running"
    BLOCKED = "blocked"  # the figures cannot be trusted, or there are too few; `blocks` says why


class Role(StrEnum):
    """What a metric was declared for before the first look."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    GUARDRAIL = "guardrail"


class Status(StrEnum):
    """What may be said of one metric of one candidate. The first two are goals', the last two guardrails'."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "unclear"
    BREACHED = "breached"  # worse than the control by more than the margin
    HELD = "held"  # proven not to be worse than the margin


class Block(StrEnum):
    """Why nothing may be concluded."""

    SAMPLE_RATIO = "sample_ratio"  # the arms did not get the shares of the units that their weights say
    FEEDBACK_COVERAGE = "feedback_coverage"  # the arms do not hear from the same share of their units
    TOO_FEW_UNITS = "too_few_units"  # fewer than the plan's burn-in in the control or in every candidate


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What other tools would show. Valid for one look at a size fixed before; nothing here moves the verdict.

    `p`, `low` and `high` are Welch's two-sided test and interval of the difference, None where weights were adapted to
    what was seen. `chance_to_win` is the normal approximation of the chance that the candidate is better.
    """

    p: float | None
    low: float | None
    high: float | None
    chance_to_win: float | None


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one candidate against the control, on the metric's own scale.

    `share` says that values lie in [0, 1] and read as per cent; else they are in `unit`. `units` and `control_units`
    count those that have the metric. `value` and `control` are the arms' means, `difference` the first minus the
    second, `relative` the difference as a share of the control's mean. Numbers that cannot be had are None.

    For a goal, [`low`, `high`] is the confidence sequence of the difference at the plan's alpha: it holds at every look
    at once. `p` is its always-valid p-value, `adjusted_p` that after Holm over all goals and candidates, which `status`
    goes by. For a guardrail, `low` and `high` are two one-sided sequences, each the bound that `status` goes by, and
    `limit` is the difference at which the margin is used up; `p` is the evidence of a breach (already corrected for
    the number of guardrails and candidates), `adjusted_p` None.
    """

    metric: str
    role: Role
    variant: str
    optimize: str
    unit: str
    share: bool
    status: Status
    units: int = 0
    control_units: int = 0
    value: float | None = None
    control: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    relative: float | None = None
    p: float | None = None
    adjusted_p: float | None = None
    limit: float | None = None
    past_burn_in: bool = False
    diagnostics: Diagnostics | None = None


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Whether the arms got the units that their weights say: a sequential test, an alarm below p = 0.001."""

    exposed: Mapping[str, int]
    expected: Mapping[str, float]
    p: float
    alarm: bool


@dataclass(frozen=True, slots=True)
class FeedbackCoverage:
    """Of each arm's exposed units, the share that has the primary metric: a sequential test, an alarm below p = 0.001.

    `explains` names the candidates whose lead would be gone if those that are missing had said the worst.
    """

    metric: str
    shares: Mapping[str, float]
    p: float
    alarm: bool
    explains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """The primary metric in one part of the traffic, one figure per candidate. `adjusted_p` is Holm's over all parts
    and candidates. It never moves the verdict."""

    name: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`sentence` is for a product manager, `reasons` (sentences with numbers) for who asks why.

    `variant` is the candidate to ship or the one that made it roll back, `guardrail` the metric that is breached.
    `further_units` and `further_days` say how much more it takes, of all arms together and at today's rate, until the
    present difference would be conclusive; None if it does not keep running or cannot be said. `weighted` says that
    the figures are means over epochs with different weights. `alpha`, `planned_units` and `burn_in` are the plan's.
    """

    word: Word
    sentence: str
    reasons: tuple[str, ...]
    figures: tuple[Figure, ...]
    sample_ratio: SampleRatio
    alpha: float
    planned_units: int
    burn_in: int
    coverage: FeedbackCoverage | None = None
    variant: str | None = None
    guardrail: str | None = None
    blocks: tuple[Block, ...] = ()
    further_units: int | None = None
    further_days: float | None = None
    segments: tuple[Segment, ...] = ()
    segments_compared: int = 0
    exposed: Mapping[str, int] = field(default_factory=dict)
    moved: int = 0
    weighted: bool = False
    adaptive: bool = False
