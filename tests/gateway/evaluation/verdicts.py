"""Verdicts and experiments as the tests of the evaluation need them: few words, the rest as usual."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from adapters.ref import AdapterRef
from gateway.domain import Variant
from gateway.experiment import Experiment, Plan, Stage
from gateway.findings import Block, Figure, Role, SampleRatio, Status, Verdict, Word

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ARMS = (Variant("base", 1.0, None), Variant("tuned", 1.0, AdapterRef("acme", "support", 1)))


def experiment(stage: Stage = Stage.EXPERIMENT, *, variants: Sequence[Variant] = ARMS, **plan: Any) -> Experiment:
    """On acme's alias `support`, its primary metric `helpful`."""
    meant = Plan(**{"primary": "helpful", **plan})
    return Experiment("exp-1", "acme", "support", "tuning", tuple(variants), stage, BEGAN, plan=meant)


def figure(variant: str = "tuned", metric: str = "helpful", *, units: int = 150, control: int = 150) -> Figure:
    return Figure(metric, Role.PRIMARY, variant, "max", "", True, Status.UNCLEAR, units, control, low=-0.1, high=0.2)


def verdict(word: Word = Word.KEEP_RUNNING, *figures: Figure, **more: Any) -> Verdict:
    """With 200 units an arm."""
    exposed = {"base": 200, "tuned": 200}
    blocks = (Block.SAMPLE_RATIO,) if word is Word.BLOCKED else ()
    ratio = SampleRatio(exposed, {"base": 200.0, "tuned": 200.0}, 1.0, alarm=False)
    usual: dict[str, Any] = {"exposed": exposed, "blocks": blocks, "variant": None}
    if word in (Word.SHIP, Word.ROLL_BACK):
        usual["variant"] = "tuned"
    found = figures or (figure(),)
    return Verdict(word, f"The word is {word}.", (), found, ratio, 0.05, 500, 100, **{**usual, **more})
