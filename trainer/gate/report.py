"""A decision for people and for programs: one page that stands alone, and the same as plain values.

The page holds what models answered, which anybody may have steered: everything is escaped, there is no script in it,
and its policy lets a browser load or run nothing. It decides nothing and asks nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.gate import pictures, policy
from trainer.gate.measuring import Measured
from trainer.gate.policy import Compared, Verdict
from trainer.gate.texts import token_f1
from trainer.settings.gate import GateSettings

if TYPE_CHECKING:
    from trainer.gate.deciding import Heard

EXAMPLES = 5
_LONGEST_SHOWN = 1500
_ROOM = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Line:
    """One figure: each version's value, and the candidate beside the other; `better` says which way is better."""

    name: str
    better: str
    values: dict[str, float]
    compared: Compared

    @property
    def word(self) -> str:
        return policy.word(self.name)


@dataclass(frozen=True, slots=True)
class Shown:
    """A row whose answers differ, for reading. `gain`: the candidate's token F1 over the other's."""

    prompt: str
    reference: str
    candidate: str
    other: str
    gain: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that there is to say about one decision."""

    verdict: Verdict
    settings: GateSettings
    against: str
    heard: Heard
    lines: list[Line]
    regression: list[Line]
    cards: Sequence[str] = field(default_factory=tuple)

    @classmethod
    def of(
        cls, heard: Heard, settings: GateSettings, verdict: Verdict, against: str, *, cards: Sequence[str] = ()
    ) -> Report:
        lines = table(heard.held_out, "candidate", heard.held_out.other, settings)
        regression = table(heard.regression, "candidate", "base", settings)
        return cls(verdict, settings, against, heard, lines, regression, cards)

    def figures(self) -> dict[str, float]:
        """Flat and finite, as the manifest holds them: `candidate.token_f1`, `difference.token_f1.low`, …; above 0 a
        difference is better, also of the loss."""
        found = {"rows": float(len(self.heard.held_out.rows)), "lost": float(self.heard.held_out.failures.total())}
        for prefix, lines in (("", self.lines), ("regression.", self.regression)):
            for line in lines:
                found |= {f"{prefix}{version}.{line.name}": value for version, value in line.values.items()}
                between = line.compared.difference
                for end, value in (("", between.value), (".low", between.low), (".high", between.high)):
                    found[f"{prefix}difference.{line.name}{end}"] = value
        if self.heard.parity is not None:
            found |= {f"parity.{name}": float(value) for name, value in asdict(self.heard.parity).items()}
        if self.heard.opinion is not None:
            found |= {f"judge.{name}": value for name, value in self.heard.opinion.figures().items()}
        return {name: round(value, 6) for name, value in found.items() if math.isfinite(value)}

    def plain(self) -> dict[str, Any]:
        """The decision as JSON would have it."""
        heard = self.heard
        return {
            **asdict(self.verdict),
            "compared_with": self.against,
            "policy": self.settings.policy.model_dump(mode="json"),
            "figures": [_plain(line) for line in self.lines],
            "regression": [_plain(line) for line in self.regression],
            "rows": len(heard.held_out.rows),
            "overlong": heard.held_out.overlong,
            "requests": heard.held_out.requests + heard.regression.requests,
            "lost": dict(heard.held_out.failures + heard.regression.failures),
            "parity": None if heard.parity is None else asdict(heard.parity),
            "judge": None if heard.opinion is None else asdict(heard.opinion),
        }

    def html(self) -> str:
        """The page, complete in itself."""
        import jinja2

        other = self.heard.held_out.other
        answers = {name: [one.answer for one in of] for name, of in self.heard.held_out.versions.items()}
        lengths = {name: [len(text) for text in of if text is not None] for name, of in answers.items()}
        wins, losses = examples(self.heard.held_out, "candidate", other)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_ROOM), autoescape=True, undefined=jinja2.StrictUndefined
        )
        environment.filters |= {"number": policy.number, "signed": policy.signed}
        return environment.get_template("report.html.jinja").render(
            report=self,
            heard=self.heard,
            versions=list(self.heard.held_out.versions),
            wins=wins,
            losses=losses,
            forest=pictures.forest([line.compared for line in self.lines], self.settings.policy.confidence),
            lengths=pictures.lengths(lengths),
            losses_picture=pictures.losses(self.heard.held_out, "candidate", other),
            percent=f"{self.settings.policy.confidence * 100:.3g} %",
        )


def table(measured: Measured, candidate: str, other: str, settings: GateSettings) -> list[Line]:
    """Every figure, with `candidate` beside `other`."""
    found = []
    for measure in measured.measures:
        compared = measured.compared(
            measure, candidate, other, confidence=settings.policy.confidence, seed=settings.seed
        )
        values = {version: measure.value(version) for version in measured.versions}
        found.append(Line(measure.name, measure.better, values, compared))
        if measure.name == "loss":
            found.append(_perplexity(found[-1]))
    return found


def examples(measured: Measured, candidate: str, other: str) -> tuple[list[Shown], list[Shown]]:
    """The rows where the candidate's answer is most better, and most worse, by token F1."""
    found = []
    for n, row in enumerate(measured.rows):
        now, before = measured.versions[candidate][n].answer, measured.versions[other][n].answer
        if now is None or before is None or (row.kind == "label" and not row.label):
            continue
        gain = token_f1(now, row.completion) - token_f1(before, row.completion)
        prompt = "\n".join(f"{message['role']}: {message.get('content')}" for message in row.messages)
        cut = [text[:_LONGEST_SHOWN] for text in (prompt, row.completion, now, before)]
        found.append(Shown(cut[0], cut[1], cut[2], cut[3], gain))
    ordered = sorted(found, key=lambda one: one.gain)
    wins = [one for one in reversed(ordered[-EXAMPLES:]) if one.gain > 0]
    return wins, [one for one in ordered[:EXAMPLES] if one.gain < 0]


def _perplexity(loss: Line) -> Line:
    """The loss as people know it; its interval is the loss's, so that it says nothing twice."""
    values = {version: math.exp(min(value, 700.0)) for version, value in loss.values.items()}
    return Line("perplexity", "down", values, loss.compared)


def _plain(line: Line) -> dict[str, Any]:
    difference = {
        name: value if math.isfinite(value) else None for name, value in asdict(line.compared.difference).items()
    }
    test = None if line.compared.test is None else asdict(line.compared.test)
    return {"name": line.name, "better": line.better, **line.values, "difference": difference, "mcnemar": test}
