"""The plan's rules: each step only where the plan gives it to the rule, and only when its figures are there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from adapters.ref import AdapterRef
from gateway.domain import Variant
from gateway.evaluation.steps import Action, next_step
from gateway.experiment import By, Guardrail, Stage
from gateway.findings import Figure, Role, Status, Word
from gateway.store.shadows import Compared
from tests.gateway.evaluation.verdicts import ARMS, experiment, figure, verdict

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RULES = {"widen": By.RULE, "ship": By.RULE, "roll_back": By.RULE}
HANDS = {"widen": By.HAND, "ship": By.HAND, "roll_back": By.HAND}
TUNED = "acme/support@1"


def mirrored(requests: int, errors: int, ref: str = TUNED) -> dict[str, Compared]:
    some = Compared(ref, requests, NOW, NOW, errors, 0, requests - errors, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    return {ref: some}


def breached(variant: str = "tuned") -> Figure:
    return replace(figure(variant, "error_rate"), role=Role.GUARDRAIL, status=Status.BREACHED)


@pytest.mark.parametrize("stage", [Stage.CANARY, Stage.EXPERIMENT])
def test_a_breached_guardrail_rolls_back_whatever_else_the_verdict_says(stage: Stage) -> None:
    plan = {**RULES, "ship": By.HAND}
    for word in Word:
        step = next_step(experiment(stage, **plan), verdict(word, figure(), breached()), {})
        assert step is not None and step.action is Action.ROLL_BACK


def test_a_candidate_that_wins_by_rule_is_promoted_although_another_one_did_harm() -> None:
    third = Variant("other", 1.0, AdapterRef("acme", "support", 2))
    both = verdict(Word.SHIP, figure(), figure("other"), breached("other"))
    step = next_step(experiment(variants=(*ARMS, third), **RULES), both, {})
    assert step is not None and (step.action, step.variant) == (Action.PROMOTE, "tuned")


def test_a_worse_candidate_is_rolled_back_and_a_better_one_promoted() -> None:
    worse = next_step(experiment(**RULES), verdict(Word.ROLL_BACK), {})
    better = next_step(experiment(**RULES), verdict(Word.SHIP), {})
    assert worse is not None and worse.action is Action.ROLL_BACK
    assert better is not None and (better.action, better.variant) == (Action.PROMOTE, "tuned")


@pytest.mark.parametrize("stage", [Stage.SHADOW, Stage.CANARY, Stage.EXPERIMENT])
def test_what_the_plan_leaves_to_people_is_never_done(stage: Stage) -> None:
    for word in Word:
        assert next_step(experiment(stage, **HANDS), verdict(word, figure(), breached()), mirrored(500, 0)) is None


@pytest.mark.parametrize("word", [Word.KEEP_RUNNING, Word.BLOCKED])
def test_an_open_question_moves_nothing(word: Word) -> None:
    assert next_step(experiment(**RULES), verdict(word), {}) is None


def test_a_canary_widens_once_each_arm_has_its_judged_units() -> None:
    canary = experiment(Stage.CANARY, **RULES, canary_units=100)
    enough, few, few_control = figure(units=100, control=100), figure(units=99), figure(control=99)
    step = next_step(canary, verdict(Word.KEEP_RUNNING, enough), {})
    assert step is not None and step.action is Action.ADVANCE
    assert next_step(canary, verdict(Word.KEEP_RUNNING, few), {}) is None
    assert next_step(canary, verdict(Word.KEEP_RUNNING, few_control), {}) is None
    assert next_step(canary, verdict(Word.BLOCKED, enough), {}) is None


def test_a_canary_that_is_better_widens_first() -> None:
    step = next_step(experiment(Stage.CANARY, **RULES), verdict(Word.SHIP), {})
    assert step is not None and step.action is Action.ADVANCE


def test_every_candidate_of_a_canary_needs_its_units() -> None:
    third = Variant("other", 1.0, AdapterRef("acme", "support", 2))
    canary = experiment(Stage.CANARY, variants=(*ARMS, third), **RULES)
    assert next_step(canary, verdict(Word.KEEP_RUNNING, figure(), figure("other", units=20)), {}) is None
    assert next_step(canary, verdict(Word.KEEP_RUNNING, figure()), {}) is None
    assert next_step(canary, verdict(Word.KEEP_RUNNING, figure(), figure("other")), {}) is not None


def test_without_a_primary_metric_a_canary_counts_exposed_units() -> None:
    canary = experiment(Stage.CANARY, **RULES, primary=None)
    assert next_step(canary, replace(verdict(), figures=(), exposed={"base": 100, "tuned": 100}), {}) is not None
    assert next_step(canary, replace(verdict(), figures=(), exposed={"base": 100, "tuned": 99}), {}) is None
    assert next_step(canary, replace(verdict(), figures=(), exposed={"base": 1000}), {}) is None


def test_a_shadow_becomes_a_canary_once_it_has_answered_enough_and_failed_little() -> None:
    shadow = experiment(Stage.SHADOW, **RULES, canary_units=100)
    step = next_step(shadow, verdict(Word.BLOCKED), mirrored(100, 1))
    assert step is not None and step.action is Action.ADVANCE and "failed 1 of 100" in step.why
    assert next_step(shadow, verdict(), mirrored(99, 0)) is None
    assert next_step(shadow, verdict(), mirrored(100, 2)) is None
    assert next_step(shadow, verdict(), mirrored(1000, 0, "acme/support@9")) is None
    lenient = experiment(Stage.SHADOW, **RULES, guardrails=(Guardrail("error_rate", 0.05),))
    assert next_step(lenient, verdict(), mirrored(100, 5)) is not None


def test_a_shadow_rolls_nothing_back_for_no_user_had_it() -> None:
    assert next_step(experiment(Stage.SHADOW, **RULES), verdict(Word.ROLL_BACK), {}) is None
