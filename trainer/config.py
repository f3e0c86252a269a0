"""A run's settings: one YAML file, `--set key=value` over it, and three variables. Imports without torch.

The only reader of the environment in the trainer: GATEWAY_URL, GATEWAY_KEY and JUDGE_KEY, for what a file should not
hold, and what torchrun tells its processes.
Data files are found relative to the file that names them; every other path is relative to the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from trainer.errors import InvalidConfig
from trainer.settings.access import GatewayAccess, PublishSettings
from trainer.settings.base import Settings
from trainer.settings.data import DataSettings
from trainer.settings.gate import GateSettings
from trainer.settings.rounds import FeedbackSettings, ReplaySettings, RoundSettings
from trainer.settings.training import LoraSettings, PreferenceSettings, TrainingSettings

ENVIRONMENT = {"GATEWAY_URL": "gateway.url", "GATEWAY_KEY": "gateway.key", "JUDGE_KEY": "gate.judge.key"}
_LIBRARIES = {
    "TOKENIZERS_PARALLELISM": "false",  # it warns of forks otherwise
    "TQDM_DISABLE": "1",  # TRL's bar, where it asks the reference beforehand
    # Threads that wait for each other must not spin where an engine uses the same cores. Measured on two shared cores:
    # a float32 step of 512 tokens takes 5 CPU-seconds, and not 19.
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True, slots=True)
class World:
    """Which process of how many this is, in all and on this machine; `rank` 0 is the main one."""

    rank: int
    size: int
    local_rank: int
    local_size: int


class RunSettings(Settings):
    """Everything about one run."""

    recipe: Literal["sft", "dpo", "kto"] = "sft"
    base_model: Annotated[str, Field(min_length=1, description="its public name, as the gateway serves it")]
    model_path: Path | None = Field(None, description="a local directory that holds it; then no network is used")
    run_dir: Path
    data: DataSettings
    lora: LoraSettings = LoraSettings()
    training: TrainingSettings = TrainingSettings()
    preference: PreferenceSettings = PreferenceSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    replay: ReplaySettings = ReplaySettings()
    round: RoundSettings = RoundSettings()
    gate: GateSettings | None = None
    gateway: GatewayAccess = GatewayAccess()
    publish: PublishSettings = PublishSettings()

    @model_validator(mode="after")
    def _parts_agree(self) -> RunSettings:
        named = self.publish.tenant is not None and self.publish.name is not None
        if self.data.gateway is not None and (self.gateway.url is None or self.publish.tenant is None):
            raise ValueError("data.gateway needs gateway.url (or GATEWAY_URL) and publish.tenant")
        if (self.publish.store is not None or self.gateway.url is not None) and not named:
            raise ValueError("publishing needs publish.tenant and publish.name")
        if self.gate is not None and self.gateway.url is None:
            raise ValueError("the gate asks the serving engine; it needs gateway.url (or GATEWAY_URL)")
        return self

    @property
    def learning_rate(self) -> float:
        """LoRA's own: about ten times what full fine-tuning takes."""
        return self.training.learning_rate or {"sft": 2e-4, "dpo": 2e-5, "kto": 2e-5}[self.recipe]

    def essence(self) -> dict[str, Any]:
        """What decides the outcome, as plain values: two runs with equal essence and equal data are the same run."""
        left_out = {"gateway": True, "run_dir": True, "model_path": True, "publish": True, "gate": True, "round": True}
        return self.model_dump(mode="json", exclude={**left_out, "training": {"threads", "save_seconds"}})


def load(
    path: Path | None,
    overrides: Iterable[tuple[str, Any]] = (),
    *,
    environ: Mapping[str, str] | None = None,
    usual: Mapping[str, Any] | None = None,
) -> RunSettings:
    """Read a config file, lay `overrides` (dotted key, value) over it, and check it. Raises `InvalidConfig`.

    `usual` (dotted key → value) is what counts where neither says anything.
    """
    raw = _read(path) if path is not None else {}
    environ = os.environ if environ is None else environ
    given = {key: environ[variable] for variable, key in ENVIRONMENT.items() if environ.get(variable)}
    judge_key = given.pop("gate.judge.key", None)
    for key, value in [*given.items(), *overrides]:
        _set(raw, key, value)
    if judge_key is not None and _has(raw, "gate.judge.url"):  # a key is no wish for a judge
        _set(raw, "gate.judge.key", judge_key)
    for key, value in (usual or {}).items():
        if not _has(raw, key):
            _set(raw, key, value)
    try:
        return RunSettings.model_validate(raw)
    except ValidationError as error:
        raise _explained(error, path) from None


def access(url: str | None) -> GatewayAccess:
    """A gateway for a command that has no run: `url` or GATEWAY_URL, and GATEWAY_KEY. Raises `InvalidConfig`."""
    try:
        given = {"url": url or os.environ.get("GATEWAY_URL"), "key": os.environ.get("GATEWAY_KEY")}
        return GatewayAccess.model_validate(given)
    except ValidationError as error:
        raise _explained(error, None) from None


def prepare_libraries() -> None:
    """Set what torch and tokenizers read when they are loaded, unless it is set already. Call before importing them."""
    for variable, value in _LIBRARIES.items():
        os.environ.setdefault(variable, value)


def world() -> World:
    """This process among those that torchrun or accelerate launch started; alone without them."""
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    return World(*(int(os.environ.get(name, alone)) for name, alone in names.items()))


def assignment(text: str) -> tuple[str, Any]:
    """Read `key=value` as `--set` takes it; the value is a YAML scalar or list. Raises `InvalidConfig`."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidConfig(f"--set {text!r} is no assignment", "write it as --set training.epochs=2")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InvalidConfig(f"the value of --set {key} cannot be read", "quote it as YAML wants it") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read ({error.strerror})", "name an existing YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise InvalidConfig(f"{where} is not YAML", "see trainer/configs/sft.yaml for one that is") from error
    if not isinstance(raw, dict):
        raise InvalidConfig(f"{path} holds no settings", "see trainer/configs/sft.yaml for one that does")
    data = raw.get("data")
    if isinstance(data, dict):
        for key in ("train", "held_out", "test"):
            files = [data[key]] if isinstance(data.get(key), str) else data.get(key) or []
            data[key] = [str(path.parent / str(file)) for file in files]
    return raw


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(raw.get(parent), dict):
            raw[parent] = {}
        raw = raw[parent]
    raw[last] = value


def _has(raw: Any, key: str) -> bool:
    for part in key.split("."):
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw is not None


def _explained(error: ValidationError, path: Path | None) -> InvalidConfig:
    source = str(path) if path is not None else "the settings"
    found = []
    for problem in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in problem["loc"])
        reason = "there is no such setting" if problem["type"] == "extra_forbidden" else problem["msg"]
        reason = reason.removeprefix("Value error, ")
        found.append(f"{key}: {reason}" if key else reason)
    remedy = "correct it, or override it with --set key=value"
    return InvalidConfig(f"{source} cannot be run; {'; '.join(found)}", remedy)
