"""What the recipes share: from settings to a packed adapter, by any trainer of TRL's, through any number of kills.

A recipe is a page. It says what its rows are and makes its trainer; everything else is here:

    def train(run, settings, progress):
        started = fit.begin(run, settings, progress)                # the seed, the model, its number format
        lora = model.with_lora(started.loaded, settings.lora)
        def build(arguments: dict[str, Any]) -> Trainer:            # what the settings decide, for its config
            return KTOTrainer(model=lora, args=KTOConfig(**arguments, beta=0.1), train_dataset=…, eval_dataset=…)
        fitted = fit.fit(run, settings, started, build, progress, rows=len(rows), watched=bool(held_out))
        fit.finish(run, settings, started, lora, fitted, {"held_out_loss": …})

`build` may be any `transformers.Trainer` subclass. With `watched`, its `evaluate()` is called as training goes and must
return `eval_loss`. `tokens`, if it has that attribute, is what it was given so far, for the progress. TRL's
own metrics, if it logs them, land in metrics.jsonl too.

A checkpoint counts once every process has written its part, which a file `whole` in it says: a kill at any moment
leaves the one before. What is continued gives the losses of a run that was never killed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import datasets
import torch
import transformers
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import TrainerState

from trainer import model, precision, processes
from trainer.config import RunSettings, world
from trainer.errors import InvalidConfig, TrainingFailed
from trainer.model import Loaded
from trainer.precision import Format
from trainer.progress import Progress
from trainer.publish import package
from trainer.runlog import RunDirectory

_WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Started:
    """A run under way: the loaded base, and when it began (seconds of the monotonic clock)."""

    loaded: Loaded
    began: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """How a training ended. `loss` is the last step's; `best_step` the step whose weights were kept, if it chose."""

    loss: float
    steps: int
    best_step: int | None


Build = Callable[[dict[str, Any]], Trainer]


def begin(run: RunDirectory, settings: RunSettings, progress: Progress) -> Started:
    """Seed everything and load the base model. Raises `InvalidConfig`."""
    _quiet()
    began = time.monotonic()
    progress.say(f"loading {settings.base_model}")
    transformers.set_seed(settings.training.seed)
    loaded = model.load(settings, lambda config, device: _format(run, settings, config, device, progress))
    how = "bfloat16" if loaded.half else "float32"
    if settings.training.quantize != "none":
        how += f", its matrices held in {settings.training.quantize}"
    loaded = dataclasses.replace(loaded, start=run.start)
    threads = f", {torch.get_num_threads()} threads" if loaded.device == "cpu" else ""
    progress.say(f"training on {loaded.device} in {how}{threads}")
    return Started(loaded, began)


def fit(
    run: RunDirectory,
    settings: RunSettings,
    started: Started,
    build: Build,
    progress: Progress,
    *,
    rows: int,
    watched: bool = False,
) -> Fitted:
    """Train to the end, or go on from the newest checkpoint. `rows` is how many an epoch has.

    Raises `TrainingFailed` when the loss is no number, and `InvalidConfig` when patience has nothing to watch.
    """
    if settings.training.patience is not None and not watched:
        raise InvalidConfig("training.patience has no held-out rows to watch", "set data.held_out_share above 0")
    checkpoint = processes.told(_last_checkpoint(run.checkpoints) if run.owned else None)
    done = 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
    if done:
        progress.say(f"continuing after step {done}")
    with run.metrics(up_to=done) as metrics:
        last, chooses = run.last_loss() if done else math.nan, _chooses(settings, watched)
        watch = _Watch(settings, metrics, progress, last=last, chooses=chooses)
        trainer = build(_arguments(run, settings, started.loaded, rows=rows, watched=watched))
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:  # TRL halves the LoRA of a quantised base: it would lose small updates
                parameter.data = parameter.data.float()
        watch.trainer = trainer
        trainer.add_callback(watch)
        trainer.remove_callback(PrinterCallback)
        if settings.training.patience is not None:
            trainer.add_callback(EarlyStoppingCallback(settings.training.patience))
        try:
            if checkpoint is None or not (state := _ended(checkpoint)):
                with model.writing(run.path):
                    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
                state = trainer.state
            else:
                trainer._load_from_checkpoint(state.best_model_checkpoint or str(checkpoint))
        finally:
            progress.end()
    return Fitted(watch.last_loss, state.global_step, state.best_global_step if chooses else None)


def finish(
    run: RunDirectory,
    settings: RunSettings,
    started: Started,
    lora: Any,
    fitted: Fitted,
    measured: dict[str, float],
) -> None:
    """Pack the adapter and keep the result; `measured` goes into its manifest. Only the main process does."""
    if run.owned:
        saved = run.path / "saved"
        shutil.rmtree(saved, ignore_errors=True)
        with model.writing(run.path):
            model.save_adapter(lora, saved)
        measured = {**measured, "train_loss": fitted.loss, "steps": float(fitted.steps)}
        if fitted.best_step is not None:
            measured["best_step"] = float(fitted.best_step)
        package(run, saved, settings, base=started.loaded.directory, metrics=measured)
        seconds = round(time.monotonic() - started.began, 1)
        run.keep_result({**measured, "seconds": seconds, "peak_memory_bytes": _peak_memory(started.loaded.device)})
        shutil.rmtree(saved)
        shutil.rmtree(run.checkpoints, ignore_errors=True)  # they hold pickles, and nothing needs them any more
    processes.wait()


class _Watch(TrainerCallback):
    """Writes metrics, shows progress, saves by the clock, and stops a training that has diverged."""

    def __init__(
        self, settings: RunSettings, metrics: TextIO, progress: Progress, *, last: float, chooses: bool
    ) -> None:
        self.trainer: Any = None
        self.last_loss = last
        self._chooses = chooses
        self._every, self._metrics, self._progress = settings.training.save_seconds, metrics, progress
        self._saved = time.monotonic()
        self._processes = world().size

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._progress.begin(state.max_steps, done=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        due = time.monotonic() - self._saved >= self._every and state.global_step < state.max_steps
        if processes.told(due):
            control.should_save = True
        if self._chooses and state.global_step >= state.max_steps:  # else the last steps could never be the best
            control.should_evaluate = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        processes.wait()
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _WHOLE).touch()
        self._saved = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise TrainingFailed(
                f"the loss is {logs['loss']} at step {state.global_step}", "lower training.learning_rate"
            )
        self.last_loss = logs["loss"]
        told = {key: value for key, value in logs.items() if key != "epoch"}
        self._metrics.write(json.dumps({"step": state.global_step, **told}) + "\n")
        tokens = getattr(self.trainer, "tokens", 0) * self._processes
        self._progress.step(state.global_step, loss=logs["loss"], tokens=tokens)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        loss = metrics["eval_loss"]
        self._metrics.write(json.dumps({"step": state.global_step, "held_out_loss": loss}) + "\n")
        self._progress.say(f"held-out loss after step {state.global_step}: {loss:.4f}")


def _format(run: RunDirectory, settings: RunSettings, config: Any, device: str, progress: Progress) -> Format:
    """The faster number format, as measured when the run began; a continued run keeps it."""
    kept = processes.told(run.about.get("precision"))
    if kept is None:
        found = precision.measure(config, device, settings.training.quantize)
        kept = processes.told({"choice": found.choice, "fp32_ms": found.fp32_ms, "bf16_ms": found.bf16_ms})
        run.remember(precision=kept)
        progress.say(f"a layer takes {kept['fp32_ms']} ms in float32, {kept['bf16_ms']} ms in bfloat16")
    return "bf16" if kept["choice"] == "bf16" else "fp32"


def _arguments(
    run: RunDirectory, run_settings: RunSettings, loaded: Loaded, *, rows: int, watched: bool
) -> dict[str, Any]:
    """Keyword arguments of `transformers.TrainingArguments` and its subclasses."""
    on_cpu, settings = loaded.device == "cpu", run_settings.training
    found: dict[str, Any] = {
        "output_dir": str(run.checkpoints),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulate,
        "gradient_checkpointing": settings.checkpointing,
        "learning_rate": run_settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip,
        "optim": "paged_adamw_8bit" if settings.quantize != "none" and not on_cpu else "adamw_torch_fused",
        "seed": settings.seed,
        "use_cpu": on_cpu,
        "bf16": not on_cpu and loaded.half,
        "dataloader_pin_memory": not on_cpu,
        "ddp_find_unused_parameters": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "save_total_limit": 2,
        "restore_callback_states_from_checkpoint": True,
        "report_to": "none",
        "log_level": "error",
        "log_level_replica": "error",
        "disable_tqdm": True,
    }
    if _chooses(run_settings, watched):
        # By steps, also once an epoch: what is due at an epoch's end is lost to a run that continues from there.
        steps = math.ceil(math.ceil(rows / settings.batch_size) / world().size / settings.accumulate)
        found |= {"eval_strategy": "steps", "eval_steps": settings.evaluate_every or steps}
        found |= {"save_strategy": "best", "save_total_limit": 3, "load_best_model_at_end": True}
        found |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    return found


def _chooses(settings: RunSettings, watched: bool) -> bool:
    """Whether the weights of the best evaluation are kept, and not the last ones."""
    return watched and (settings.training.patience is not None or settings.training.evaluate_every is not None)


def _last_checkpoint(directory: Path) -> Path | None:
    """The newest whole checkpoint. What a kill left half written goes, and so does what it left half deleted."""
    found = sorted(directory.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        if (path / _WHOLE).exists():
            return path
        shutil.rmtree(path)
    return None


def _ended(checkpoint: Path) -> TrainerState | None:
    """Its state if nothing is left to train after it (the best step may have been the last); the trainer would."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    return state if state.global_step >= state.max_steps else None


def _peak_memory(device: str) -> int:
    """The most bytes this process held: on the GPU where it trained on one, else resident."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _quiet() -> None:
    """The libraries' own bars and advice would bury ours."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
