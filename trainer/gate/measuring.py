"""Several versions on the same rows: what they were asked, what they answered, and every figure of it beside another.

It knows no run and no verdict: `decide` and `trainer eval` both measure with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapters.examples import Example
from trainer.asking import Asker
from trainer.gate.evaluation import Kept, Say, Version, evaluate
from trainer.gate.figures import Measure, Outcome, is_reference, label_set, measures
from trainer.gate.policy import Compared, Drift
from trainer.gate.questions import Asked
from trainer.gate.statistics import clusters, mcnemar, paired_bootstrap
from trainer.gate.texts import normal


@dataclass(frozen=True, slots=True)
class Measured:
    """`versions` maps each version's name to its outcomes in the order of `rows`; `failures` counts lost requests."""

    rows: list[Example]
    versions: dict[str, list[Outcome]]
    measures: list[Measure]
    overlong: int
    requests: int
    failures: Counter[str]

    @property
    def other(self) -> str:
        """What a candidate is compared with: the incumbent, where that is not the base itself."""
        return "incumbent" if "incumbent" in self.versions else "base"

    def named(self, name: str) -> Measure | None:
        return next((measure for measure in self.measures if measure.name == name), None)

    def compared(self, measure: Measure, candidate: str, other: str, *, confidence: float, seed: int) -> Compared:
        """One figure of two versions, with the interval of their difference."""
        of = clusters([self.rows[n].unit for n in measure.rows])
        up = measure.better != "down"
        between = paired_bootstrap(
            measure.of[candidate], measure.of[other], of, confidence=confidence, seed=seed, up=up
        )
        told = measure.each and measure.better != "neither"  # of refusals more are not a win
        test = mcnemar(measure.each[candidate], measure.each[other], of) if told else None
        return Compared(measure.name, measure.value(candidate), measure.value(other), between, test)

    def drift(self, version: str) -> Drift:
        values = {name: self.named(name) for name in ("length", "refusals", "repetition")}
        return Drift(**{name: one.value(version) if one is not None else 0.0 for name, one in values.items()})

    def reference_length(self) -> float:
        """The mean length of the completions to imitate, in characters; 0 without any."""
        found = [len(row.completion) for row in self.rows if is_reference(row)]
        return sum(found) / len(found) if found else 0.0

    def write(self, path: Path) -> None:
        """One line a row: enough to compute every figure again."""
        with path.open("w", encoding="utf-8") as file:
            for n, row in enumerate(self.rows):
                line = {"row": json.loads(row.to_json())} | {
                    name: _plain(outcomes[n]) for name, outcomes in self.versions.items()
                }
                file.write(json.dumps(line) + "\n")


async def measure(
    versions: Sequence[Version],
    asked: Asked,
    asker: Asker,
    kept: Kept,
    say: Say,
    *,
    labels: frozenset[str] | None = None,
) -> Measured:
    """Ask each version in its turn, so that the engine holds one adapter at a time. Raises `GatewayFailed`."""
    found: dict[str, list[Outcome]] = {}
    failures: Counter[str] = Counter()
    requests = 0
    for version in versions:
        one = await evaluate(version, asked.questions, asker, kept, say)
        found[version.name], requests = one.outcomes, requests + one.requests
        failures += one.failures
    rows = [question.example for question in asked.questions]
    return Measured(rows, found, measures(rows, found, labels=labels), asked.overlong, requests, failures)


def labels_of(
    wanted: Literal["auto", "on", "off"], rows: Sequence[Example], known: Sequence[Example] = ()
) -> frozenset[str] | None:
    """The normal forms of a label task's answers; None for any other task. `known` are further rows to tell by."""
    completions = [row.completion for row in rows if is_reference(row)]
    if wanted == "on":
        return frozenset(map(normal, completions))
    more = [row.completion for row in known if is_reference(row)]
    return label_set(completions + more) if wanted == "auto" else None


def _plain(outcome: Outcome) -> dict[str, Any]:
    found = {"answer": outcome.answer, "finish": outcome.finish, "logprobs": outcome.logprobs}
    return found | {"rejected": outcome.rejected, "labels": dict(outcome.labels)}
