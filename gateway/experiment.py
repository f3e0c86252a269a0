"""An experiment and the numbers it comes to, frozen: what store, control, feedback, api and console pass to each other.

It decides nothing and computes nothing: who gets which variant is `serving/routing.py`'s, what the numbers mean is
`feedback/verdict.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from gateway.domain import Split, Unit, Variant


class Stage(StrEnum):
    """Where an experiment is on its way. The last three are ends."""

    SHADOW = "shadow"  # candidates answer a share of the requests a second time, shown to nobody
    CANARY = "canary"  # a small part of the users takes part
    EXPERIMENT = "experiment"  # all that the coverage names take part
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    STOPPED = "stopped"

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self in (Stage.PROMOTED, Stage.ROLLED_BACK, Stage.STOPPED)


class By(StrEnum):
    """Who takes a step: a person, or the rule as soon as the verdict says so."""

    HAND = "hand"
    RULE = "rule"


class Allocation(StrEnum):
    """How weights come about: as given, or drawn anew now and then from what is known so far (opt-in)."""

    FIXED = "fixed"
    THOMPSON = "thompson"


@dataclass(frozen=True, slots=True)
class Guardrail:
    """`metric` of a candidate may be worse than the control's by at most `margin`: in the metric's own unit or, if
    `relative`, as a share of the control's mean."""

    metric: str
    margin: float
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What was fixed before the first look, and is shown with every result.

    `alpha`: the chance that any goal is ever called wrongly; guardrails have as much again for themselves
    (docs/statistics.md). `planned_units` is N*, of both compared arms together, where the intervals are tightest.
    `burn_in`: units an arm needs before anything is said of it. `cuped_days`: how much of a unit's past steadies its
    present (0: none). `canary_units`: judged units an arm needs, with every guardrail unbroken, before a canary widens
    by rule.
    """

    primary: str | None = None
    secondaries: tuple[str, ...] = ()
    guardrails: tuple[Guardrail, ...] = ()
    alpha: float = 0.05
    planned_units: int = 500
    burn_in: int = 100
    cuped_days: int = 0
    canary_units: int = 100
    widen: By = By.HAND
    ship: By = By.HAND
    roll_back: By = By.RULE
    allocation: Allocation = Allocation.FIXED


@dataclass(frozen=True, slots=True)
class Epoch:
    """A time with the same weights: from the alias's `revision` on. `weights` are relative, in the variants' order."""

    revision: int
    since: datetime
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Experiment:
    """A comparison on one alias: the first of `variants` is the control, the others are the candidates.

    `variants` have the weights of the newest epoch. `coverage` is the share of the units that take part at the stage
    `experiment`, `canary_coverage` at the stage `canary`. `layer` names a set of experiments of the tenant of which no
    unit takes part in two. `split` is what routing sees when it is not paused.
    """

    id: str
    tenant: str
    alias: str
    name: str
    variants: tuple[Variant, ...]
    stage: Stage
    started_at: datetime
    plan: Plan = Plan()
    unit: Unit = Unit.TARGETING_KEY
    coverage: float = 1.0
    canary_coverage: float = 0.05
    layer: str | None = None
    hypothesis: str = ""
    owner: str = ""
    paused: bool = False
    split: Split | None = None
    epochs: tuple[Epoch, ...] = ()
    ended_at: datetime | None = None
    end_reason: str | None = None

    @property
    def control(self) -> Variant:
        """What the others are compared with."""
        return self.variants[0]

    @property
    def status(self) -> str:
        """`running`, `paused` or `stopped`."""
        return "stopped" if self.stage.ended else "paused" if self.paused else "running"


@dataclass(frozen=True, slots=True)
class Sums:
    """Over the units of one arm that have the metric: sums of and between four numbers of a unit.

    `n` is how often the metric was measured on the unit since its first exposure, `s` the sum of the values (the
    mean is s / n); `m` and `x` are the same before its first exposure, 0 where nothing is known. A pair of letters is
    the sum of the products.
    """

    units: int = 0
    n: float = 0.0
    s: float = 0.0
    m: float = 0.0
    x: float = 0.0
    nn: float = 0.0
    ns: float = 0.0
    nm: float = 0.0
    nx: float = 0.0
    ss: float = 0.0
    sm: float = 0.0
    sx: float = 0.0
    mm: float = 0.0
    mx: float = 0.0
    xx: float = 0.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a verdict rests on. Keys are (epoch's position, variant's name), before them the metric's name.

    `exposed` counts units by the arm and epoch of their first exposure. `moved` counts units that a change of weights
    gave to another arm: what they did there is left out. `segments` holds the same for parts of the traffic ("prompt:
    long"), a unit being in the parts of its first exposure. `units_per_day` is the recent rate of new units.
    """

    exposed: Mapping[tuple[int, str], int] = field(default_factory=dict)
    sums: Mapping[tuple[str, int, str], Sums] = field(default_factory=dict)
    segments: Mapping[str, Evidence] = field(default_factory=dict)
    moved: int = 0
    units_per_day: float | None = None
