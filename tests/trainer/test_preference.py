"""DPO and KTO train for real: they agree with stock TRL, continue where they were, and heed weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

from adapters.examples import Example
from loadtests.training.__main__ import main as loadtest
from tests.trainer import tiny
from tests.trainer.test_sft import Quiet, losses
from trainer.config import RunSettings
from trainer.errors import InvalidConfig, InvalidData
from trainer.pairs import scores
from trainer.recipes import dpo, kto
from trainer.runlog import RunDirectory
from trainer.settings.training import PreferenceSettings
from trainer.tree import Tree

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]

RECIPES = {"dpo": dpo, "kto": kto}
STEPS = 6


def asked(n: int, completion: str, **more: Any) -> Example:
    system = {"role": "system", "content": "say one of: red, green, blue"}
    return Example(
        messages=[system, {"role": "user", "content": f"what {'is ' * (n % 4)}{n}"}], completion=completion, **more
    )


def pairs(count: int, weight: float = 1.0) -> list[Example]:
    return [
        asked(n, f"it is {n % 5}", rejected=f"{n % 3} it was", kind="preference", weight=weight) for n in range(count)
    ]


def thumbs(count: int, weight: float = 1.0) -> list[Example]:
    return [asked(n, f"it is {n % 5}", label=n % 3 == 0, kind="label", weight=weight) for n in range(count)]


def rows_of(recipe: str, count: int = 18) -> list[Example]:
    return pairs(count) if recipe == "dpo" else thumbs(count)


def settings(directory: Path, model: Path, recipe: str, **changed: Any) -> RunSettings:
    directory.mkdir(exist_ok=True)
    more = {"training__learning_rate": 5e-3, "training__max_steps": STEPS, "preference__beta": 0.5}
    return tiny.settings(directory, model, recipe=recipe, **{**more, **changed})


def trained(
    wanted: RunSettings, rows: list[Example], held_out: list[Example], voice: Quiet | None = None
) -> dict[str, Any]:
    run = RunDirectory(wanted)
    try:
        if not run.resumed:
            run.keep_data(rows, held_out, {})
        RECIPES[wanted.recipe].train(run, wanted, voice or Quiet())
        result = run.result()
        assert result is not None and run.adapter.exists()
        return result
    finally:
        run.close()


STOCK: dict[str, Any] = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 4,
    "learning_rate": 5e-3,
    "warmup_steps": 0.05,
    "beta": 0.5,
    "use_cpu": True,
    "bf16": False,
    "logging_steps": 1,
    "seed": 0,
}


def as_text(tokenizer: Any, row: Example) -> dict[str, Any]:
    prompt = tokenizer.apply_chat_template(row.messages, tokenize=False, add_generation_prompt=True)
    answer = row.completion + "<|im_end|>"
    if row.rejected is None:
        return {"prompt": prompt, "completion": answer, "label": row.label}
    return {"prompt": prompt, "chosen": answer, "rejected": row.rejected + "<|im_end|>"}


def stock(directory: Path, model: Path, wanted: RunSettings, rows: list[Example]) -> list[float]:
    """The losses of TRL's own trainer, given text."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    transformers.set_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    shape = LoraConfig(
        r=8, lora_alpha=wanted.lora.scale, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    data = datasets.Dataset.from_list([as_text(tokenizer, row) for row in rows])
    common: dict[str, Any] = {"train_dataset": data, "processing_class": tokenizer}
    trainer: Any
    if wanted.recipe == "dpo":
        trainer = DPOTrainer(get_peft_model(base, shape), args=DPOConfig(str(directory), **STOCK), **common)
    else:
        good, bad = kto.balance([{"label": row.label, "weight": 1.0} for row in rows], wanted.preference)
        arguments = KTOConfig(str(directory), **STOCK, desirable_weight=good, undesirable_weight=bad)
        trainer = KTOTrainer(get_peft_model(base, shape), args=arguments, **common)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("recipe", ["dpo", "kto"])
def test_the_losses_are_those_of_stock_trl(tmp_path: Path, tiny_model: Path, recipe: str):
    wanted = settings(tmp_path, tiny_model, recipe)
    rows = rows_of(recipe)
    trained(wanted, rows, [])
    ours = losses(wanted.run_dir)
    if recipe == "kto":  # TRL takes them in the order given
        order = kto.arranged([{"label": row.label, "completion_ids": [], "row": row} for row in rows], wanted)
        rows = [one["row"] for one in order]
    assert ours[-1] < ours[0]
    assert ours == pytest.approx(stock(tmp_path, tiny_model, wanted, rows), abs=1e-4)


class Killed(Exception):
    """As a kill would: nothing after it is written."""


class Mortal(Quiet):
    """Dies after a number of steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def step(self, *arguments: Any, **named: Any) -> None:
        super().step(*arguments, **named)
        self._left -= 1
        if not self._left:
            raise Killed


@pytest.mark.parametrize("recipe", ["dpo", "kto"])
def test_a_run_killed_twice_ends_with_the_losses_of_one_that_was_not_and_asks_the_reference_once(
    tmp_path: Path, tiny_model: Path, recipe: str
):
    rows, held_out = rows_of(recipe), rows_of(recipe, 24)[18:]
    whole = settings(tmp_path / "whole", tiny_model, recipe)
    result = trained(whole, rows, held_out)
    wanted = settings(tmp_path / "killed", tiny_model, recipe, training__save_seconds=0)
    kept = []
    for steps in (3, 2):
        with pytest.raises(Killed):
            trained(wanted, rows, held_out, Mortal(steps))
        kept.append({path: path.stat().st_mtime_ns for path in wanted.run_dir.glob("checkpoints/*/cache-*.arrow")})
    assert kept[0] == kept[1] and len(kept[0]) == 2
    voice = Quiet()
    again = trained(wanted, rows, held_out, voice)
    assert any(line.startswith("continuing after step ") for line in voice.said)
    assert losses(wanted.run_dir) == pytest.approx(losses(whole.run_dir), abs=1e-6)
    measured = [key for key in result if key.startswith("held_out")]
    assert [again[key] for key in measured] == pytest.approx([result[key] for key in measured], abs=1e-5)


def test_what_was_held_out_is_measured_before_and_after(tmp_path: Path, tiny_model: Path):
    wanted = settings(tmp_path / "dpo", tiny_model, "dpo", training__learning_rate=2e-2)
    found = trained(wanted, pairs(18), pairs(24)[18:])
    assert found["held_out_loss_before"] == pytest.approx(0.693147, abs=1e-5) and found["held_out_loss"] < 0.4
    assert found["held_out_preference_accuracy"] >= found["held_out_preference_accuracy_before"]
    assert found["held_out_reward_accuracy"] == 1.0 and found["held_out_reward_margin"] > 0.5
    last = json.loads((wanted.run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["rewards/margins"] > 0 and last["rewards/accuracies"] == 1.0
    assert last["chosen_change"] == pytest.approx(last["rewards/chosen"] / 0.5, abs=1e-3)
    wanted = settings(tmp_path / "kto", tiny_model, "kto", training__learning_rate=2e-2)
    found = trained(wanted, thumbs(18), thumbs(24)[18:])
    assert found["held_out_reward_auc_before"] == 0.5 and found["held_out_loss"] < found["held_out_loss_before"]
    assert {"held_out_reward_auc", "held_out_good_change", "held_out_bad_change"} <= set(found)


@pytest.mark.parametrize("recipe", ["dpo", "kto"])
def test_a_live_reference_changes_no_loss_killed_or_not(tmp_path: Path, tiny_model: Path, recipe: str):
    whole = settings(tmp_path / "whole", tiny_model, recipe)
    trained(whole, rows_of(recipe), [])
    wanted = settings(tmp_path / "live", tiny_model, recipe, preference__reference="live", training__save_seconds=0)
    with pytest.raises(Killed):
        trained(wanted, rows_of(recipe), [], Mortal(4))
    trained(wanted, rows_of(recipe), [])
    assert losses(wanted.run_dir) == pytest.approx(losses(whole.run_dir), abs=1e-6)


def test_a_model_with_a_sliding_window_gets_padded_rows_and_the_same_losses(tmp_path: Path, tiny_model: Path):
    sliding = shutil.copytree(tiny_model, tmp_path / "model")
    shape = json.loads((sliding / "config.json").read_text())
    (sliding / "config.json").write_text(json.dumps({**shape, "sliding_window": 4096}))
    found = []
    for model in (tiny_model, sliding):
        wanted = settings(tmp_path / model.name, model, "kto", training__max_steps=3)
        trained(wanted, thumbs(18), [])
        found.append(losses(wanted.run_dir))
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_the_reference_is_the_adapter_that_a_run_goes_on_from(tmp_path: Path, tiny_model: Path):
    first = settings(tmp_path / "first", tiny_model, "dpo")
    learnt = trained(first, pairs(18), pairs(24)[18:])
    wanted = settings(tmp_path / "second", tiny_model, "dpo", training__max_steps=2)
    shutil.copytree(first.run_dir / "adapter", wanted.run_dir / "start")
    found = trained(wanted, pairs(18), pairs(24)[18:])
    assert found["held_out_loss_before"] == pytest.approx(0.693147, abs=1e-5) and learnt["held_out_loss"] < 0.5
    assert losses(wanted.run_dir)[0] == pytest.approx(0.693147, abs=1e-5)
    live = settings(tmp_path / "live", tiny_model, "dpo", preference__reference="live")
    shutil.copytree(first.run_dir / "adapter", live.run_dir / "start")
    with pytest.raises(
        InvalidConfig, match=r"live cannot ask the adapter of training\.start_from: leave it at precomp"
    ):
        trained(live, pairs(18), [])


@pytest.mark.parametrize("recipe", ["dpo", "kto"])
def test_weights_scale_what_a_row_has_in_the_loss(tmp_path: Path, tiny_model: Path, recipe: str):
    """At the first step each pair's loss is ln 2 and each thumb's 1/2, whatever the row; so the weights show."""
    rows = [row.model_copy(update={"weight": 0.5 if n % 2 else 2.0}) for n, row in enumerate(rows_of(recipe, 4))]
    sides = {"preference__desirable_weight": 1.0, "preference__undesirable_weight": 1.0}
    wanted = settings(tmp_path, tiny_model, recipe, training__max_steps=2, **sides)
    trained(wanted, rows, [])
    assert losses(wanted.run_dir)[0] == pytest.approx(1.25 * (0.693147 if recipe == "dpo" else 0.5), abs=1e-5)


def test_a_tree_gives_each_row_what_trls_fused_head_gives_it_alone(tiny_model: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    examples = [
        {"prompt_ids": [5, 6, 7, *range(8, 8 + n)], "chosen_ids": [9, 4, n + 3], "rejected_ids": [9, n + 4]}
        for n in range(1, 6)
    ]
    inputs = DataCollatorForPreference(pad_token_id=2)(examples)
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    asked = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    padded = model(**asked, labels=labels, fused_lm_head=True)
    for widest in (2048, 30):  # in one tree, and in several
        found = scores(model, inputs, widest=widest)
        for name in ("log_probs", "entropy", "mean_logits", "is_top1"):
            torch.testing.assert_close(found[name], padded[name], rtol=1e-4, atol=1e-5)


def test_what_rows_share_is_in_the_tree_once():
    paths = [[0, 1, 2, 3], [0, 1, 2, 4, 5], [0, 6]]
    tree = Tree([1, 2, 3, 4, 5, 6, 9], [-1, 0, 1, 2, 2, 4, 0], [0, 1, 2, 3, 3, 4, 1], paths)
    assert Tree.of([[1, 2, 3, 4], [1, 2, 3, 5, 6], [1, 9]]) == tree


def test_good_and_bad_are_spread_and_every_prompt_gets_anothers_answer(tmp_path: Path, tiny_model: Path):
    wanted = settings(tmp_path, tiny_model, "kto")
    rows = [{"label": n % 3 == 0, "completion_ids": [n]} for n in range(21)]
    order = kto.arranged(rows, wanted)
    assert sorted(row["completion_ids"] for row in order) == [[n] for n in range(21)]
    assert all({row["label"] for row in order[start : start + 4]} == {True, False} for start in range(0, 20, 4))
    assert all(row["KL_completion_ids"] != row["completion_ids"] for row in order)
    for start in range(0, 20, 4):
        batch = order[start : start + 4]
        assert [row["KL_completion_ids"] for row in batch] == [batch[n - 1]["completion_ids"] for n in range(4)]


def test_both_sides_weigh_the_same_unless_told_otherwise():
    rows = [{"label": n < 3, "weight": 2.0 if n < 3 else 1.0} for n in range(15)]  # 6 in all against 12
    assert kto.balance(rows, PreferenceSettings()) == (1.5, 0.75)
    assert kto.balance(rows, PreferenceSettings(undesirable_weight=1.0)) == (2.0, 1.0)
    assert kto.balance(rows, PreferenceSettings(desirable_weight=1.0)) == (1.0, 0.5)
    assert kto.balance(rows, PreferenceSettings(desirable_weight=1.0, undesirable_weight=3.0)) == (1.0, 3.0)


def test_rows_of_another_kind_are_told_of_and_none_at_all_is_an_error(tmp_path: Path, tiny_model: Path):
    voice = Quiet()
    with pytest.raises(InvalidData, match="there is no pair to learn from"):
        trained(settings(tmp_path / "dpo", tiny_model, "dpo"), thumbs(3), [], voice)
    assert "3 training rows are nothing that dpo learns from" in voice.said
    with pytest.raises(InvalidData, match="kto has no answer that was judged bad: collect some of both"):
        trained(settings(tmp_path / "kto", tiny_model, "kto"), thumbs(1), [])
    with pytest.raises(InvalidConfig, match=r"training\.batch_size 1 leaves kto no other answer to compare with"):
        trained(settings(tmp_path / "one", tiny_model, "kto", training__batch_size=1), thumbs(9), [])


@pytest.mark.parametrize("recipe", ["sft", "kto"])
def test_the_load_test_keeps_both_sides_and_finds_their_losses_equal(tmp_path: Path, tiny_model: Path, recipe: str):
    words = f"{recipe} --model {tiny_model} --rounds 1 --steps 2 --batch-size 3 --against trl"
    loadtest(words.split(), results=tmp_path)
    [kept] = tmp_path.glob("*.json")
    figures = json.loads(kept.read_text())
    assert set(figures["sides"]) == {"ours", "trl"} and figures["apart"] < 1e-4
    assert "| ours " in kept.with_suffix(".md").read_text() and figures["ratios"]["trl"] > 0
