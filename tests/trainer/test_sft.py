"""The recipe trains for real: it agrees with stock TRL, survives kill -9, and leaves what can be served."""

from __future__ import annotations

import io
import json
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from adapters.ref import AdapterRef
from adapters.store import AdapterStore
from adapters.weights import BaseShape, inspect
from tests.trainer import tiny
from trainer.errors import InvalidConfig, InvalidData, TrainingFailed
from trainer.progress import PlainProgress
from trainer.recipes.fit import _last_checkpoint
from trainer.run import run_all

TARGETS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]


class Quiet(PlainProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), every_seconds=0)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def test_two_steps_publish_an_adapter_that_peft_loads_and_inspection_takes(tmp_path: Path, tiny_model: Path):
    wanted = tiny.settings(
        tmp_path,
        tiny_model,
        training__max_steps=2,
        publish__store=str(tmp_path / "store"),
        publish__tenant="acme",
        publish__name="support",
    )
    voice = Quiet()
    result = run_all(wanted, voice)
    opened = AdapterStore(str(tmp_path / "store")).open(AdapterRef.parse(result["ref"]))
    assert (result["ref"], result["digest"]) == ("acme/support@1", opened.digest)
    assert sorted(file.name for file in opened.path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    found = inspect(opened.path, base=BaseShape.of(tiny_model), base_model=tiny.NAME)
    assert found.rank == 8 and set(found.target_modules) == TARGETS
    assert str(tiny_model) not in "".join(file.read_bytes().decode("latin-1") for file in opened.path.iterdir())
    assert opened.manifest.lineage.examples == result["examples"] and opened.manifest.metrics["steps"] == 2
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7]])
    plain = base(ids).logits
    assert not torch.equal(PeftModel.from_pretrained(base, str(opened.path))(ids).logits, plain)
    assert any(line.startswith("held-out loss after training") for line in voice.said)


def trained(directory: Path, model: Path, **changed: Any) -> list[float]:
    directory.mkdir()
    wanted = tiny.settings(directory, model, **changed)
    run_all(wanted, Quiet())
    return losses(wanted.run_dir)


def test_accumulated_batches_and_recomputed_activations_give_the_losses_of_one_batch(tmp_path: Path, tiny_model: Path):
    plain = trained(tmp_path / "plain", tiny_model)
    halves = {"training__batch_size": 2, "training__accumulate": 2}
    assert trained(tmp_path / "halves", tiny_model, **halves) == pytest.approx(plain, abs=1e-5)
    assert trained(tmp_path / "again", tiny_model, training__checkpointing=True) == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_quantised_base_learns_and_leaves_an_ordinary_adapter(tmp_path: Path, tiny_model: Path, quantize: str):
    wanted = tiny.settings(tmp_path, tiny_model, training__quantize=quantize, training__max_steps=2)
    result = run_all(wanted, Quiet())
    assert result["held_out_loss"] < result["held_out_loss_before"] and result["peak_memory_bytes"] > 1e8
    found = inspect(wanted.run_dir / "adapter", base=BaseShape.of(tiny_model), base_model=tiny.NAME)
    assert set(found.target_modules) == TARGETS and found.config.rslora
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    PeftModel.from_pretrained(base, str(wanted.run_dir / "adapter"))


def test_a_held_out_loss_before_training_leaves_the_gradients_of_a_4_bit_base_as_they_are(
    tmp_path: Path, tiny_model: Path
):
    common = {"training__quantize": "nf4", "data__held_out_share": 0.0, "training__learning_rate": 1e-2}
    alone = trained(tmp_path / "alone", tiny_model, **common)
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "what?", "completion": "that"}\n')
    assert trained(tmp_path / "held_out", tiny_model, data__held_out=str(asked), **common) == alone


def test_training_stops_when_held_out_rows_gain_no_more_and_the_best_weights_are_kept(tmp_path: Path, tiny_model: Path):
    rate = {"training__learning_rate": 0.02, "training__max_steps": 40, "data__held_out_share": 0.2}
    stopping = {
        "training__schedule": "constant_with_warmup",
        "training__warmup": 0.0,
        "training__patience": 2,
        "training__evaluate_every": 2,
        "training__save_seconds": 0,
    }
    wanted = tiny.settings(tmp_path, tiny_model, **rate, **stopping)
    result = run_all(wanted, Quiet())
    lines = [json.loads(line) for line in (wanted.run_dir / "metrics.jsonl").read_text().splitlines()]
    seen = {line["step"]: line["held_out_loss"] for line in lines if "held_out_loss" in line}
    assert result["steps"] == max(seen) < 40 and result["best_step"] == min(seen, key=lambda step: seen[step])
    assert result["held_out_loss"] == pytest.approx(min(seen.values()), abs=1e-5) and result["best_step"] < max(seen)


def test_the_last_step_is_looked_at_too_and_may_be_the_best(tmp_path: Path, tiny_model: Path):
    more = {"training__evaluate_every": 4, "training__max_steps": 6, "data__held_out_share": 0.2}
    result = run_all(tiny.settings(tmp_path, tiny_model, training__learning_rate=1e-3, **more), Quiet())
    assert (result["steps"], result["best_step"]) == (6, 6)


def test_the_number_format_is_measured_once_a_run_and_kept(tmp_path: Path, tiny_model: Path):
    wanted = tiny.settings(tmp_path, tiny_model, training__max_steps=2, training__precision="auto")
    voice = Quiet()
    run_all(wanted, voice)
    kept = json.loads((wanted.run_dir / "run.json").read_text())["precision"]
    assert kept["choice"] in ("fp32", "bf16") and kept["fp32_ms"] > 0 and kept["bf16_ms"] > 0
    assert f"a layer takes {kept['fp32_ms']} ms in float32, {kept['bf16_ms']} ms in bfloat16" in voice.said
    (wanted.run_dir / "result.json").unlink()
    again = Quiet()
    run_all(wanted, again)
    assert not any(line.startswith("a layer takes") for line in again.said)


def test_patience_without_rows_to_watch_is_refused(tmp_path: Path, tiny_model: Path):
    with pytest.raises(InvalidConfig, match=r"no held-out rows to watch: set data\.held_out_share above 0"):
        run_all(tiny.settings(tmp_path, tiny_model, training__patience=1, data__held_out_share=0.0), Quiet())


def test_a_run_goes_on_from_a_version_of_the_store_and_says_so_in_its_lineage(tmp_path: Path, tiny_model: Path):
    store = {"publish__store": str(tmp_path / "store"), "publish__tenant": "acme", "publish__name": "support"}
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
    first = run_all(tiny.settings(tmp_path / "first", tiny_model, training__learning_rate=1e-2, **store), Quiet())
    wanted = tiny.settings(tmp_path / "second", tiny_model, training__start_from="acme/support@1", **store)
    second = run_all(wanted, Quiet())
    assert second["held_out_loss_before"] == pytest.approx(first["held_out_loss"], abs=1e-5)
    opened = AdapterStore(str(tmp_path / "store")).open(AdapterRef.parse(second["ref"]))
    assert opened.manifest.lineage.parent == "acme/support@1"
    other = {"training__start_from": str(wanted.run_dir / "adapter"), "lora__rank": 16}
    with pytest.raises(InvalidConfig, match=r"start_from has rank 8, but lora\.rank is 16: set lora\.rank to 8\.$"):
        run_all(tiny.settings(tmp_path / "third", tiny_model, **other), Quiet())


def test_a_finished_run_publishes_again_without_training(tmp_path: Path, tiny_model: Path):
    store = str(tmp_path / "store")
    names = {"publish__tenant": "acme", "publish__name": "support"}
    wanted = tiny.settings(tmp_path, tiny_model, training__max_steps=2, publish__store=store, **names)
    first, voice = run_all(wanted, Quiet()), Quiet()
    assert run_all(wanted, voice) == first
    assert voice.said == [f"continuing run {first['run']}, with the rows it began with", "publishing"]
    elsewhere = tiny.settings(tmp_path, tiny_model, training__max_steps=2, publish__store=store + "2", **names)
    assert run_all(elsewhere, Quiet())["digest"] == first["digest"]


def test_the_losses_are_those_of_stock_trl(tmp_path: Path, tiny_model: Path):
    wanted = tiny.settings(tmp_path, tiny_model, training__learning_rate=5e-3, data__held_out_share=0.0)
    run_all(wanted, Quiet())
    ours = losses(wanted.run_dir)
    stock = _stock_losses(tmp_path, tiny_model, wanted)
    assert len(ours) == len(stock) == 6 and ours[-1] < ours[0]
    assert ours == pytest.approx(stock, abs=1e-4)


def _stock_losses(directory: Path, model: Path, wanted: Any) -> list[float]:
    rows = [json.loads(line) for line in wanted.data.train[0].read_text().splitlines()]
    table = []
    tokenizer = AutoTokenizer.from_pretrained(model)
    for row in rows:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["prompt"]}], tokenize=False, add_generation_prompt=True
        )
        table.append({"prompt": prompt, "completion": row["completion"] + "<|im_end|>"})
    transformers.set_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    lora = get_peft_model(
        base, LoraConfig(r=8, lora_alpha=8.0, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    arguments = SFTConfig(
        output_dir=str(directory / "stock"),
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=5e-3,
        warmup_steps=0.05,
        seed=0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=lora, args=arguments, train_dataset=datasets.Dataset.from_list(table), processing_class=tokenizer
    )
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def test_a_run_killed_in_its_midst_ends_with_the_losses_of_one_that_was_not(tmp_path: Path, tiny_model: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    common: dict[str, Any] = {"training__max_steps": 200, "lora__dropout": 0.1}
    whole = tiny.settings(tmp_path / "a", tiny_model, **common)
    run_all(whole, Quiet())
    wanted = tiny.settings(tmp_path / "b", tiny_model, training__save_seconds=0, **common)
    words = tiny.command(wanted, "--set", "lora.dropout=0.1")
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = wanted.run_dir / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text().count("\n") >= 10):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = metrics.read_text().count("\n")
    assert 10 <= reached < 200 and not (wanted.run_dir / "adapter").exists()
    voice = Quiet()
    after = tiny.settings(tmp_path / "b", tiny_model, **common)
    result = run_all(after, voice)
    assert any(line.startswith("continuing after step ") for line in voice.said)
    assert losses(after.run_dir) == pytest.approx(losses(whole.run_dir), abs=1e-6)
    final = json.loads((whole.run_dir / "result.json").read_text())
    assert result["held_out_loss"] == pytest.approx(final["held_out_loss"], abs=1e-5)


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path):
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-9" / "whole").touch()
    assert _last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert _last_checkpoint(tmp_path / "none") is None


def test_a_training_that_diverges_says_so_and_publishes_nothing(tmp_path: Path, tiny_model: Path):
    wanted = tiny.settings(tmp_path, tiny_model, training__learning_rate=1.0, training__weight_decay=1e12)
    with pytest.raises(TrainingFailed, match=r"the loss is (nan|inf) at step \d: lower training\.learning_rate\.$"):
        run_all(wanted, Quiet())
    assert not (wanted.run_dir / "adapter").exists()


def test_a_disk_that_is_full_is_told_and_with_room_the_run_goes_on(tmp_path: Path, tiny_model: Path):
    wanted = tiny.settings(tmp_path, tiny_model, training__save_seconds=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, before[1]))  # more than the adapter, less than the optimizer
    try:
        with pytest.raises(
            TrainingFailed, match=r"cannot be written \(.*\): make room, and run the same command again"
        ):
            run_all(wanted, Quiet())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run_all(wanted, Quiet())["steps"] == 6


def test_rows_too_long_for_any_answer_are_a_failure(tmp_path: Path, tiny_model: Path):
    wanted = tiny.settings(tmp_path, tiny_model, data__max_tokens=8)
    voice = Quiet()
    with pytest.raises(InvalidData, match=r"no training row leaves a token to learn from: raise data\.max_tokens"):
        run_all(wanted, voice)
    assert any("rows over 8 tokens: " in line and "dropped, 0 cut" in line for line in voice.said)


def test_the_command_prints_one_json_object_and_progress_elsewhere(tmp_path: Path, tiny_model: Path):
    wanted = tiny.settings(tmp_path, tiny_model, training__max_steps=3)
    done = subprocess.run(tiny.command(wanted, "--json"), capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert result["ref"] is None and result["digest"].startswith("sha256:") and result["steps"] == 3
    assert "step 3/3 · loss " in done.stderr and "tokens/s" in done.stderr
    assert "Warning" not in done.stderr
