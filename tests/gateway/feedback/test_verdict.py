"""What a verdict says of made-up evidence: the word, whom it names, why, and how much longer."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from gateway.experiment import Allocation, Evidence, Guardrail, Plan, Sums
from gateway.feedback.verdict import judge
from gateway.findings import Block, Role, Status, Verdict, Word
from tests.gateway.feedback.truth.judged import METRICS, evidence, experiment, shares, sums

PLAN = Plan(primary="liked", guardrails=(Guardrail("error_rate", 0.02),), planned_units=2000)


def told(plan: Plan = PLAN, *candidates: str, units: int = 2000, **metrics: dict[str, Sums]) -> Verdict:
    """Of arms that each had `units` units."""
    running = experiment(plan, *candidates)
    exposed = dict.fromkeys((variant.name for variant in running.variants), units)
    return judge(running, METRICS, evidence(exposed, **metrics))


def liked(**happy: int) -> dict[str, Sums]:
    """Of 1000 units each."""
    return {name: shares(1000, number) for name, number in happy.items()}


def errors(**failed: int) -> dict[str, Sums]:
    """Of 2000 units each."""
    return {name: shares(2000, number) for name, number in failed.items()}


def test_better_with_every_guardrail_proven_is_shipped_and_the_sentence_has_the_figures():
    verdict = told(liked=liked(control=550, new=650), error_rate=errors(control=20, new=20))
    assert verdict.word is Word.SHIP and verdict.variant == "new"
    assert "65.0 %" in verdict.sentence and "55.0 %" in verdict.sentence and "+10.0 points" in verdict.sentence
    goal, rail = verdict.figures
    assert (goal.role, goal.status, goal.difference) == (Role.PRIMARY, Status.BETTER, pytest.approx(0.10))
    assert goal.low is not None and 0 < goal.low < 0.10 and goal.adjusted_p is not None and goal.adjusted_p < 0.05
    assert (rail.role, rail.status, rail.limit) == (Role.GUARDRAIL, Status.HELD, pytest.approx(0.02))
    assert (verdict.alpha, verdict.planned_units, verdict.burn_in) == (0.05, 2000, 100)


def test_better_with_a_guardrail_still_open_keeps_running_and_says_which():
    verdict = told(liked=liked(control=550, new=650), error_rate=errors(control=20, new=44))
    assert verdict.word is Word.KEEP_RUNNING and "error_rate" in verdict.sentence
    assert verdict.further_units is not None and verdict.further_days == pytest.approx(verdict.further_units / 100)


def test_a_breached_guardrail_rolls_back_and_is_named():
    verdict = told(liked=liked(control=550, new=650), error_rate=errors(control=20, new=150))
    assert (verdict.word, verdict.variant, verdict.guardrail) == (Word.ROLL_BACK, "new", "error_rate")
    assert "7.5 %" in verdict.sentence and "+2.0 points" in verdict.sentence


def test_a_breached_guardrail_rolls_back_even_where_nothing_else_may_be_said():
    failing = errors(control=20, new=150)
    assert told(error_rate=failing).word is Word.ROLL_BACK, "nobody has judged yet"
    lost = told(liked={"control": shares(1000, 550), "new": shares(600, 390)}, error_rate=failing)
    assert lost.coverage is not None and lost.coverage.alarm and lost.word is Word.ROLL_BACK


def test_worse_rolls_back():
    verdict = told(liked=liked(control=650, new=550), error_rate=errors(control=20, new=20))
    assert (verdict.word, verdict.variant, verdict.guardrail) == (Word.ROLL_BACK, "new", None)


def test_what_may_be_chance_keeps_running_with_the_units_that_it_would_take():
    verdict = told(liked=liked(control=550, new=570), error_rate=errors(control=20, new=20))
    assert verdict.word is Word.KEEP_RUNNING and verdict.further_units is not None
    assert verdict.sentence.startswith("Keep running: liked of 'new' differs by +2.0 points")
    factor = 1 + verdict.further_units / 4000  # everything grown by as much is just conclusive
    grown = {
        name: shares(round(1000 * factor), round(rate * factor)) for name, rate in (("control", 550), ("new", 570))
    }
    safe = {name: shares(round(2000 * factor), round(20 * factor)) for name in grown}
    assert told(units=round(2000 * factor), liked=grown, error_rate=safe).word is Word.SHIP
    almost = {
        name: shares(round(900 * factor), round(rate * 0.9 * factor)) for name, rate in (("control", 550), ("new", 570))
    }
    assert told(units=round(1800 * factor), liked=almost, error_rate=safe).word is Word.KEEP_RUNNING


def test_no_difference_at_all_would_never_be_conclusive():
    verdict = told(liked=liked(control=550, new=550), error_rate=errors(control=20, new=20))
    assert verdict.word is Word.KEEP_RUNNING and verdict.further_units is None and "any number" in verdict.sentence


def test_too_few_units_block_and_say_how_many_are_missing():
    few = {"control": shares(80, 40), "new": shares(50, 45)}
    verdict = told(units=200, liked=few)
    assert (verdict.word, verdict.blocks) == (Word.BLOCKED, (Block.TOO_FEW_UNITS,))
    assert verdict.further_units == 400, "one unit in four is known of both"
    assert verdict.figures[0].p is None and verdict.figures[0].status is Status.UNCLEAR
    assert told(units=0).blocks == (Block.TOO_FEW_UNITS,)


def test_a_lost_share_of_units_blocks():
    running = experiment(PLAN)
    seen = evidence(
        {"control": 2400, "new": 2000}, liked=liked(control=550, new=650), error_rate=errors(control=20, new=20)
    )
    verdict = judge(running, METRICS, seen)
    assert verdict.word is Word.BLOCKED and Block.SAMPLE_RATIO in verdict.blocks and verdict.sample_ratio.alarm
    assert verdict.sample_ratio.expected == {"control": 2200, "new": 2200}


def test_a_lead_that_missing_feedback_could_explain_blocks_before_the_alarm_does():
    some = {"control": shares(1000, 550), "new": shares(930, 590)}
    verdict = told(liked=some, error_rate=errors(control=20, new=20))
    assert verdict.figures[0].status is Status.BETTER
    assert verdict.coverage is not None and not verdict.coverage.alarm and verdict.coverage.explains == ("new",)
    assert (verdict.word, verdict.blocks) == (Word.BLOCKED, (Block.FEEDBACK_COVERAGE,))


def test_of_two_candidates_the_better_one_is_shipped_whatever_the_other_does():
    both = liked(control=550, one=660, two=700)
    assert told(PLAN, "one", "two", liked=both, error_rate=errors(control=20, one=20, two=20)).variant == "two"
    verdict = told(PLAN, "one", "two", liked=both, error_rate=errors(control=20, one=20, two=200))
    assert (verdict.word, verdict.variant) == (Word.SHIP, "one")
    half = told(
        PLAN, "one", "two", liked=liked(control=550, one=560, two=450), error_rate=errors(control=20, one=20, two=20)
    )
    assert half.word is Word.KEEP_RUNNING and half.variant == "one"


def test_a_secondary_costs_certainty_and_one_that_got_worse_is_said():
    plan = replace(PLAN, secondaries=("latency",))
    slow = {
        name: sums(1.0, np.random.default_rng(1).normal(mean, 80, 2000))
        for name, mean in (("control", 500), ("new", 540))
    }
    verdict = told(plan, liked=liked(control=550, new=650), error_rate=errors(control=20, new=20), latency=slow)
    assert verdict.word is Word.SHIP and verdict.sentence.endswith("But latency got worse.")
    alone = told(liked=liked(control=550, new=612), error_rate=errors(control=20, new=20))
    same = {"control": slow["control"], "new": slow["control"]}
    among = told(plan, liked=liked(control=550, new=612), error_rate=errors(control=20, new=20), latency=same)
    assert among.figures[0].p == alone.figures[0].p and among.figures[0].adjusted_p == pytest.approx(
        2 * alone.figures[0].p
    )


def test_a_relative_margin_is_a_share_of_the_control_s_mean():
    plan = replace(
        PLAN,
        primary=None,
        guardrails=(Guardrail("latency", 0.1, relative=True), Guardrail("stars", 0.1, relative=True)),
    )
    rng = np.random.default_rng(2)
    latency = {name: sums(1.0, rng.normal(mean, 80, 2000)) for name, mean in (("control", 500), ("new", 600))}
    stars = {name: sums(1.0, rng.normal(mean, 1, 2000)) for name, mean in (("control", 4), ("new", 3.95))}
    verdict = told(plan, latency=latency, stars=stars)
    slow, fine = verdict.figures
    assert (verdict.word, verdict.guardrail) == (Word.ROLL_BACK, "latency")
    assert slow.limit == pytest.approx(50, rel=0.02) and slow.low is not None and slow.low > slow.limit
    assert fine.limit == pytest.approx(-0.4, rel=0.02) and fine.low is not None and fine.low > fine.limit
    assert (slow.status, fine.status) == (Status.BREACHED, Status.HELD)


def test_a_count_is_of_every_exposed_unit_and_its_silence_no_lost_feedback():
    plan = Plan(primary="orders", planned_units=2000)
    orders = {"control": sums(1.0, np.ones(200)), "new": sums(1.0, np.ones(320))}
    verdict = told(plan, orders=orders)
    assert verdict.coverage is None and verdict.word is Word.SHIP
    assert verdict.figures[0].value == pytest.approx(0.16) and verdict.figures[0].units == 2000


def test_the_past_steadies_the_present_if_the_plan_says_so():
    rng = np.random.default_rng(3)
    stars, plan = {}, Plan(primary="stars", planned_units=2000)
    for name, lead in (("control", 0.0), ("new", 0.1)):
        leaning = rng.normal(4, 1, 2000)
        stars[name] = sums(1.0, leaning + lead + rng.normal(0, 0.3, 2000), 1.0, leaning + rng.normal(0, 0.3, 2000))
    widths = []
    for days in (0, 14):
        figure = told(replace(plan, cuped_days=days), stars=stars).figures[0]
        assert figure.low is not None and figure.high is not None
        widths.append(figure.high - figure.low)
    assert widths[1] < 0.5 * widths[0]


def test_segments_are_counted_and_corrected_and_never_move_the_verdict():
    whole = evidence(
        {"control": 2000, "new": 2000}, liked=liked(control=550, new=560), error_rate=errors(control=20, new=20)
    )
    parts = {
        f"part: {at}": Evidence(
            whole.exposed, {("liked", 0, "control"): shares(500, 250), ("liked", 0, "new"): shares(500, 250 + lead)}
        )
        for at, lead in enumerate((100, 0, 0, 0))
    }
    verdict = judge(experiment(PLAN), METRICS, replace(whole, segments=parts))
    assert verdict.word is Word.KEEP_RUNNING and verdict.segments_compared == 4
    first, *others = [segment.figures[0] for segment in verdict.segments]
    assert first.status is Status.BETTER and first.adjusted_p == pytest.approx(4 * first.p)
    assert {figure.status for figure in others} == {Status.UNCLEAR}
    assert any("1 of 4 comparisons" in reason for reason in verdict.reasons)


def test_adapted_weights_show_no_fixed_horizon_p_value_and_are_marked():
    plan = replace(PLAN, allocation=Allocation.THOMPSON)
    verdict = told(plan, liked=liked(control=550, new=650), error_rate=errors(control=20, new=20))
    shown = verdict.figures[0].diagnostics
    assert verdict.adaptive and shown is not None
    assert shown.p is None and shown.low is None and shown.high is None and shown.chance_to_win is not None


def test_without_a_primary_only_guardrails_are_watched():
    plan = replace(PLAN, primary=None)
    assert told(plan, error_rate=errors(control=20, new=20)).word is Word.KEEP_RUNNING
    assert told(plan, error_rate=errors(control=20, new=150)).word is Word.ROLL_BACK
    assert told(Plan()).word is Word.KEEP_RUNNING


@pytest.mark.parametrize("happy", [0, 1000])
def test_all_of_one_opinion_is_no_certainty_and_every_number_is_json(happy: int):
    same = told(liked=liked(control=happy, new=happy), error_rate=errors(control=0, new=0))
    assert same.word is Word.KEEP_RUNNING
    for verdict in (same, told(units=0), told(liked={"new": shares(3, 3)})):
        for number in _numbers(json.loads(json.dumps(asdict(verdict), allow_nan=False))):
            assert math.isfinite(number)


def test_constant_numbers_that_are_equal_hold_a_guardrail_and_settle_no_goal():
    plan = Plan(primary="stars", guardrails=(Guardrail("latency", 1.0),))
    constant = {name: sums(1.0, np.full(2000, 5.0)) for name in ("control", "new")}
    verdict = told(plan, stars=constant, latency=constant)
    assert [figure.status for figure in verdict.figures] == [Status.UNCLEAR, Status.HELD]


def _numbers(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [one for part in tree.values() for one in _numbers(part)]
    if isinstance(tree, list):
        return [one for part in tree for one in _numbers(part)]
    return [tree] if isinstance(tree, int | float) else []
