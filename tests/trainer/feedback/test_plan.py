"""The planner says what the feedback supports, what is missing, and what a round would take."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from adapters.judgements import Judged
from tests.trainer.feedback.judged import answered, at, better_than, ideal, thumb
from trainer import config, feedback
from trainer.config import RunSettings
from trainer.errors import InvalidConfig, InvalidData
from trainer.feedback import cli, rounds
from trainer.feedback.machines import Shape, Work, estimate, machine
from trainer.feedback.plan import Incumbent, Plan, apply, plan
from trainer.progress import Silent
from trainer.settings.training import TrainingSettings

ROUND = {
    "base_model": "org/Model-8B",
    "run_dir": "runs/support",
    "gateway.url": "http://gateway",
    "publish.tenant": "acme",
    "publish.name": "support",
    "data.gateway.alias": "support",
}
TUNED = Incumbent("acme/support@3", "sft", at(5000))


def settings(**changed: Any) -> RunSettings:
    return config.load(None, [*ROUND.items(), *((k.replace("__", "."), v) for k, v in changed.items())], environ={})


def planned(judged: Iterable[Judged], *, incumbent: Incumbent | None = None, **changed: Any) -> Plan:
    chosen = settings(**changed)
    return plan(feedback.compile(judged, chosen.feedback), chosen, incumbent=incumbent)


def corrected(count: int) -> list[Judged]:
    return [answered(n, ideal(n, f"better {n}")) for n in range(count)]


def thumbs(up: int, down: int) -> list[Judged]:
    return [answered(n, thumb(n, n < up)) for n in range(up + down)]


def states(found: Plan) -> dict[str, str]:
    return {each.recipe: each.state for each in found.supports}


def test_a_few_dozen_thumbs_are_not_a_round_and_the_plan_says_what_is_missing():
    found = planned(thumbs(0, 36))
    assert found.recipe is None and found.command is None
    assert "464 more thumbs or ratings before KTO, at least 50 more of them up" in found.supports[2].missing
    assert any("all labels are bad" in note for note in found.notes)
    with pytest.raises(InvalidData) as refused:
        found.required()
    assert "\n" not in str(refused.value) and "50 more corrections or liked answers before SFT" in str(refused.value)


def test_corrections_make_an_sft_round_from_the_base_with_replay():
    found = planned(corrected(212), incumbent=Incumbent("acme/other@1"))
    assert (found.recipe, states(found)["kto"]) == ("sft", "not yet")
    assert str(found.supports[0]) == "SFT now: 212 corrections, 0 liked answers, of 212 users"
    assert found.changes == {"recipe": "sft", "replay.share": 0.2, "training.epochs": 3.0}


def test_after_an_sft_round_on_the_same_rows_thumbs_make_a_kto_round_from_the_incumbent():
    judged = thumbs(up=400, down=200)
    assert planned(judged).recipe == "sft"
    found = planned(judged, incumbent=TUNED)
    assert (found.recipe, states(found)["sft"]) == ("kto", "nothing new")
    assert found.changes == {"recipe": "kto", "training.start_from": "acme/support@3", "training.epochs": 1.0}
    narrow = planned(judged, incumbent=Incumbent("acme/support@3", "sft", at(5000), rank=8))
    assert narrow.changes["lora.rank"] == 8
    later = [answered(n, ideal(n + 5000, "better")) for n in range(2000, 2020)]
    assert planned([*judged, *later], incumbent=TUNED).recipe == "sft"


def test_pairs_make_a_dpo_round_where_sft_has_nothing_to_imitate():
    found = planned([answered(n, better_than(n, "worse")) for n in range(500)])
    assert found.recipe == "dpo" and states(found) == {"sft": "not yet", "dpo": "now", "kto": "not yet"}


def test_rows_count_as_their_weights_do():
    rare = [answered(n, ideal(n, "better"), variant="tuned", propensity=0.01) for n in range(5)]
    often = [answered(n, ideal(n, "better"), propensity=0.99) for n in range(5, 60)]
    found = planned([*rare, *often], feedback__user_share=1)
    assert states(found)["sft"] == "not yet" and "which count as 12" in found.supports[0].have


def test_rows_that_say_the_same_count_as_one_since_a_run_has_each_once():
    often = [answered(n, thumb(n, n % 12 != 3), asks=f"question {n % 12}", answer="so") for n in range(600)]
    found = planned(often)
    assert states(found)["sft"] == "not yet" and "39 more" in found.supports[0].missing
    assert found.supports[0].have == "0 corrections, 550 liked answers, of 550 users, with 11 different rows"
    assert "488 more" in found.supports[2].missing and found.supports[2].have.startswith("11 good and 1 bad labels")


def test_what_somebody_has_set_stays():
    found = planned(corrected(60), training__epochs=7, replay__share=0.5)
    assert found.changes == {"recipe": "sft"}
    kept = planned(thumbs(400, 200), incumbent=TUNED, training__start_from="acme/support@1")
    assert "training.start_from" not in kept.changes


def test_the_thresholds_are_settings():
    assert planned(thumbs(6, 6), round__kto_labels=10, round__kto_lesser=5).recipe == "kto"


def test_the_command_is_the_one_that_runs_the_round():
    found = planned(corrected(60))
    assert found.command == (
        "trainer run --round --gateway http://gateway --tenant acme --alias support --name support "
        "--base-model org/Model-8B --run-dir runs/support"
    )


def test_a_key_that_was_set_is_not_in_the_command():
    given = ["gateway.key=tl-secret", "round.sft_rows=5"]
    assert cli.words(Path("a.yaml"), given, settings(gateway__key="tl-secret")) == ["a.yaml", "--set", given[1]]


def test_too_few_users_for_the_cap_are_told_of():
    one = [answered(n, ideal(n, "better"), unit="editor") for n in range(60)]
    found = planned(one, feedback__user_rows=100)
    assert found.recipe == "sft" and "cannot hold with 1 users (20 could)" in found.notes[0]


def test_a_round_that_was_planned_goes_on_as_planned(tmp_path: Path):
    chosen = settings(run_dir=str(tmp_path))
    assert rounds.planned(chosen) is None
    (tmp_path / "round.json").write_text(json.dumps({"changes": {"recipe": "kto", "training.epochs": 1.0}}))
    found = rounds.planned(chosen)
    assert found is not None and (found.recipe, found.training.epochs) == ("kto", 1.0)
    assert found == apply(chosen, {"training.epochs": 1.0, "recipe": "kto"})


def test_a_round_without_feedback_is_refused_in_a_sentence():
    with pytest.raises(InvalidConfig, match="a round needs live feedback: name a gateway"):
        rounds.begin(settings(), None, Silent())


def test_what_the_flags_leave_open_is_named_after_the_alias():
    flags = {"gateway.url": "http://g", "publish.tenant": "acme", "data.gateway.alias": "help", "base_model": "o/m"}
    found = cli.settings_of(None, None, flags)
    assert (str(found.run_dir), found.publish.name, found.base_model) == ("runs/help", "help", "o/m")


def test_a_round_of_nothing_says_what_to_name():
    with pytest.raises(InvalidConfig, match="a round needs live feedback: name a config file, or --gateway"):
        cli.settings_of(None, None, {})


def test_an_estimate_grows_with_the_work_and_shrinks_with_the_machine():
    shape = Shape.of("org/Model-8B", None)
    assert shape is not None and shape.parameters == 8e9
    small, large = (Work(tokens, 3, 0, 512, 8) for tokens in (1_000_000, 9_000_000))
    fast, slow = machine("NVIDIA H100"), machine("l4", price=1.25)
    told = [estimate(shape, work, on, TrainingSettings(), rank=16) for work in (small, large) for on in (fast, slow)]
    assert told[0].seconds[1] < told[2].seconds[1] < told[3].seconds[1]
    assert told[1].cost is not None and told[1].cost[1] == pytest.approx(told[1].seconds[1] / 3600 * 1.25)
    assert told[0].fits and not told[1].fits
    nf4 = estimate(shape, small, slow, TrainingSettings(quantize="nf4", checkpointing=True), rank=16)
    assert nf4.memory[1] < told[1].memory[1] and nf4.fits
    low, likely, high = told[0].seconds
    assert low < likely < high


def test_a_models_size_is_read_from_its_config_or_its_name(tmp_path: Path):
    smol = {"hidden_size": 576, "num_hidden_layers": 30, "vocab_size": 49152, "num_attention_heads": 9}
    smol |= {"num_key_value_heads": 3, "intermediate_size": 1536}
    (tmp_path / "config.json").write_text(json.dumps(smol))
    found = Shape.of("org/some-base", tmp_path)
    assert found is not None and found.parameters == pytest.approx(134.5e6, rel=0.01)
    named = Shape.of("org/SmolLM2-135M-Instruct", None)
    assert named is not None and named.parameters == 135e6
    assert Shape.of("org/some-base", None) is None


def test_a_machine_that_nobody_knows_is_refused_with_those_that_are():
    with pytest.raises(InvalidConfig, match=r"name cpu or one of B200, H200, H100"):
        machine("abacus")
