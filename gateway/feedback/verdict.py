"""From the sums of an experiment to a word and a sentence. Pure: it knows no SQL, no clock, nobody who acts on it.

What is said rests on sequences that hold at every look at once, so that it may be asked every second. The numbers are
made in `figures.py`, the checks of the data in `sample_ratio.py` and `coverage.py`; docs/statistics.md explains all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gateway.domain import Metric
from gateway.experiment import Allocation, Evidence, Experiment
from gateway.feedback import coverage, figures, patience, sample_ratio, wording
from gateway.feedback.figures import Bench, sign
from gateway.findings import (
    Block,
    FeedbackCoverage,
    Figure,
    Role,
    SampleRatio,
    Segment,
    Status,
    Verdict,
    Word,
)


@dataclass(frozen=True, slots=True)
class _Case:
    """What the word follows from."""

    bench: Bench
    goals: list[Figure]
    guardrails: list[Figure]
    ratio: SampleRatio
    heard: FeedbackCoverage | None

    @property
    def primaries(self) -> list[Figure]:
        return [figure for figure in self.goals if figure.role is Role.PRIMARY]

    @property
    def breached(self) -> list[Figure]:
        """The clearest first."""
        found = [figure for figure in self.guardrails if figure.status is Status.BREACHED]
        return sorted(found, key=lambda figure: figure.p or 0.0)

    @property
    def distrusted(self) -> tuple[Block, ...]:
        """Why no figure may be believed."""
        found = [Block.SAMPLE_RATIO] if self.ratio.alarm else []
        return (*found, Block.FEEDBACK_COVERAGE) if self.heard is not None and self.heard.alarm else tuple(found)

    @property
    def leaders(self) -> list[Figure]:
        """Primaries of candidates that are better and whose guardrails all hold. The best first."""
        held = [one for one in self.primaries if one.status is Status.BETTER and all(map(_holds, self.rails(one)))]
        return sorted(held, key=lambda figure: -sign(figure) * (figure.difference or 0.0))

    @property
    def winners(self) -> list[Figure]:
        """The leaders whose lead does not hang on feedback that is missing."""
        return [one for one in self.leaders if self.heard is None or one.variant not in self.heard.explains]

    def rails(self, goal: Figure) -> list[Figure]:
        """The guardrails of the goal's candidate."""
        return [figure for figure in self.guardrails if figure.variant == goal.variant]


@dataclass(frozen=True, slots=True)
class _Said:
    word: Word
    sentence: str
    variant: str | None = None
    guardrail: str | None = None
    blocks: tuple[Block, ...] = ()
    further: float | None = None


def judge(experiment: Experiment, metrics: Mapping[str, Metric], evidence: Evidence) -> Verdict:
    """The verdict as of `evidence`. `metrics` are those that the plan names, by name; one that is missing is taken for
    a float of which more is better.

    In this order: a candidate that is better and safe is shipped, if the data can be trusted. Else a breached guardrail
    rolls back, trusted or not: the way back must not hang on anything. Else what cannot be trusted, or is too little,
    blocks. Else candidates that are all worse roll back, and otherwise it keeps running.
    """
    bench, plan = Bench(experiment, metrics, evidence), experiment.plan
    goals = figures.goals(bench)
    primaries = [figure for figure in goals if figure.role is Role.PRIMARY]
    heard = coverage.judge(bench, primaries)
    case = _Case(bench, goals, figures.guardrails(bench), _sample_ratio(bench), heard)
    said = _say(case)
    segments = figures.segments(bench)
    further = None if said.further is None else int(np.ceil(said.further))
    return Verdict(
        word=said.word,
        sentence=said.sentence,
        reasons=tuple(_reasons(case, segments)),
        figures=(*goals, *case.guardrails),
        sample_ratio=case.ratio,
        alpha=plan.alpha,
        planned_units=plan.planned_units,
        burn_in=plan.burn_in,
        coverage=heard,
        variant=said.variant,
        guardrail=said.guardrail,
        blocks=said.blocks,
        further_units=further,
        further_days=_days(further, evidence.units_per_day),
        segments=segments,
        segments_compared=len(segments) * len(bench.candidates),
        exposed=case.ratio.exposed,
        moved=evidence.moved,
        weighted=len({epoch for epoch, _ in evidence.exposed}) > 1,
        adaptive=plan.allocation is Allocation.THOMPSON,
    )


def _say(case: _Case) -> _Said:
    primary = case.bench.experiment.plan.primary
    if case.winners and not case.distrusted:
        return _ship(case, case.winners[0])
    if case.breached:
        return _breach(case.breached[0])
    if case.distrusted or case.leaders:  # leaders that are not winners: feedback is missing
        return _blocked(case, case.distrusted or (Block.FEEDBACK_COVERAGE,))
    if _too_few(case):
        return _wait_for_burn_in(case)
    if case.primaries and all(figure.status is Status.WORSE for figure in case.primaries):
        worst = min(case.primaries, key=lambda figure: sign(figure) * (figure.difference or 0.0))
        return _Said(
            Word.ROLL_BACK, f"Roll back: {wording.of_goal(worst, case.bench.experiment.plan.alpha)}", worst.variant
        )
    if primary is None:
        return _Said(Word.KEEP_RUNNING, "Keep running: no primary metric was declared, so only guardrails are watched.")
    return _keep_running(case)


def _ship(case: _Case, figure: Figure) -> _Said:
    safe = "every guardrail holds" if case.guardrails else "no guardrail was declared"
    plan = case.bench.experiment.plan
    worse = [one.metric for one in case.goals if one.variant == figure.variant and one.status is Status.WORSE]
    but = f" But {' and '.join(worse)} got worse." if worse else ""
    return _Said(
        Word.SHIP,
        f"Ship '{figure.variant}': {figure.metric} is {wording.amount(figure, figure.value)} against"
        f" {wording.amount(figure, figure.control)}, a difference of {wording.change(figure, figure.difference)}"
        f" ({wording.per_cent(1 - plan.alpha)} interval {wording.interval(figure)}), and {safe}.{but}",
        figure.variant,
    )


def _breach(figure: Figure) -> _Said:
    nearest = wording.change(figure, figure.high if sign(figure) > 0 else figure.low)
    return _Said(
        Word.ROLL_BACK,
        f"Roll back '{figure.variant}': {figure.metric} is {wording.amount(figure, figure.value)} against"
        f" {wording.amount(figure, figure.control)}, {wording.change(figure, figure.difference)}, at best"
        f" {nearest}, where {wording.change(figure, figure.limit)} is allowed.",
        figure.variant,
        figure.metric,
    )


def _blocked(case: _Case, blocks: tuple[Block, ...]) -> _Said:
    heard = case.heard
    if Block.SAMPLE_RATIO in blocks:
        sentence = (
            "Blocked: the arms did not get the units that their weights say."
            f" {wording.of_ratio(case.ratio)} Find what loses or misplaces units before you trust any figure."
        )
    elif heard is not None and heard.alarm:
        sentence = (
            f"Blocked: the arms do not hear from the same share of their units. {wording.of_coverage(heard)}"
            " Those who are missing are seldom like the others."
        )
    else:
        names = " and ".join(f"'{figure.variant}'" for figure in case.leaders)
        told = wording.of_coverage(heard) if heard is not None else ""
        sentence = f"Blocked: the lead of {names} could come from feedback that is missing. {told}"
    return _Said(Word.BLOCKED, sentence, blocks=blocks)


def _too_few(case: _Case) -> bool:
    """Whether there is no candidate of which anything may be said."""
    if case.primaries:
        return not any(figure.past_burn_in for figure in case.primaries)
    return not any(figure.past_burn_in for figure in case.guardrails) and bool(case.guardrails)


def _wait_for_burn_in(case: _Case) -> _Said:
    burn_in, per_day = case.bench.experiment.plan.burn_in, case.bench.evidence.units_per_day
    nearest = max(case.primaries or case.guardrails, key=lambda figure: min(figure.units, figure.control_units))
    least = min(nearest.units, nearest.control_units)
    further = (burn_in - least) * sum(case.ratio.exposed.values()) / least if least else None
    sentence = (
        f"Blocked: too few units. {nearest.metric} is known of {nearest.units:,} of '{nearest.variant}' and"
        f" {nearest.control_units:,} of the control; {burn_in:,} of each are needed before anything is said."
    )
    if further is not None:
        sentence = f"{sentence} {wording.of_rest(further, per_day, if_what='as many of them are heard from')}"
    return _Said(Word.BLOCKED, sentence, blocks=(Block.TOO_FEW_UNITS,), further=further)


def _keep_running(case: _Case) -> _Said:
    """With the candidate that is nearest to a conclusion."""
    per_day = case.bench.evidence.units_per_day
    alive = [one for one in case.primaries if one.past_burn_in and one.status is not Status.WORSE] or case.primaries
    rest, figure = min(
        ((patience.further(case.bench, one, case.rails(one), goals=len(case.goals)), one) for one in alive),
        key=lambda pair: (pair[0], -sign(pair[1]) * (pair[1].difference or 0.0)),
    )
    further = rest if np.isfinite(rest) else None
    told = wording.of_rest(further, per_day)
    if figure.status is Status.BETTER:
        open_ = " and ".join(rail.metric for rail in case.rails(figure) if not _holds(rail))
        what = f"'{figure.variant}' is better in {figure.metric}, but that it is no worse than allowed in {open_} is"
        return _Said(Word.KEEP_RUNNING, f"Keep running: {what} not proven yet. {told}", figure.variant, further=further)
    what = f"{figure.metric} of '{figure.variant}' differs by {wording.change(figure, figure.difference)}, which may be"
    return _Said(
        Word.KEEP_RUNNING,
        f"Keep running: {what} chance (interval {wording.interval(figure)}). {told}",
        figure.variant,
        further=further,
    )


def _sample_ratio(bench: Bench) -> SampleRatio:
    names = [variant.name for variant in bench.experiment.variants]
    seen = {name: bench.exposed(name) for name in names}
    epochs, expected = [], dict.fromkeys(names, 0.0)
    weights_now = tuple(variant.weight for variant in bench.experiment.variants)
    for at in bench.epochs:
        known = bench.experiment.epochs
        weights = known[at].weights if at < len(known) else weights_now
        counts, whole = [seen[name][at] for name in names], sum(weights)
        epochs.append((counts, weights))
        for name, weight in zip(names, weights, strict=True):
            expected[name] += sum(counts) * weight / whole if whole else 0.0
    p = sample_ratio.p_value(epochs)
    return SampleRatio({name: sum(seen[name]) for name in names}, expected, p, p < sample_ratio.ALARM)


def _reasons(case: _Case, segments: tuple[Segment, ...]) -> list[str]:
    plan, evidence = case.bench.experiment.plan, case.bench.evidence
    found = [wording.of_goal(figure, plan.alpha) for figure in case.goals]
    found += [wording.of_guardrail(figure) for figure in case.guardrails]
    found.append(wording.of_ratio(case.ratio))
    if case.heard is not None:
        found.append(wording.of_coverage(case.heard))
    if plan.allocation is Allocation.THOMPSON:
        found.append(
            "Weights were adapted to what was seen: figures are weighted by epoch, fixed-horizon p-values left out."
        )
    if evidence.moved:
        found.append(f"{evidence.moved:,} units were given to another arm on the way; what they did there is left out.")
    notable = [one for part in segments for one in part.figures if one.status in (Status.BETTER, Status.WORSE)]
    if segments:
        many = len(segments) * len(case.bench.candidates)
        found.append(
            f"{len(notable)} of {many} comparisons in parts of the traffic differ, corrected for their number."
        )
    return found


def _holds(figure: Figure) -> bool:
    return figure.status is Status.HELD


def _days(units: float | None, per_day: float | None) -> float | None:
    days = units / per_day if units is not None and per_day else np.inf
    return days if np.isfinite(days) else None
