"""A run's settings: one YAML file, `--set key=value` over it, and two variables. Imports without torch.

The only reader of the environment in the trainer: GATEWAY_URL and GATEWAY_KEY, for what a file should not hold.
Data files are found relative to the file that names them; every other path is relative to the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from adapters.ref import is_slug
from trainer.errors import InvalidConfig

ENVIRONMENT = {"GATEWAY_URL": "gateway.url", "GATEWAY_KEY": "gateway.key"}
_LIBRARIES = {
    "TOKENIZERS_PARALLELISM": "false",  # it warns of forks otherwise
    # Threads that wait for each other must not spin where an engine uses the same cores. Measured on two shared cores:
    # a float32 step of 512 tokens takes 5 CPU-seconds, and not 19.
    "OMP_WAIT_POLICY": "PASSIVE",
}


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GatewayExport(_Settings):
    """The rows a gateway exports: what was asked of `alias`, and what was said of the answers (by `metric`)."""

    alias: str
    metric: str | None = None
    since: datetime | None = None


class DataSettings(_Settings):
    """Where rows come from. Files are .jsonl, .csv or .parquet; all sources are merged."""

    train: list[Path] = Field(default_factory=list)
    held_out: list[Path] = Field(default_factory=list, description="never trained on; replaces held_out_share")
    held_out_share: float = Field(0.1, ge=0, lt=0.9, description="of the units (or prompts), by a sticky hash")
    gateway: GatewayExport | None = None
    system: str | None = Field(None, description="system prompt of rows that bring none")
    max_tokens: int = Field(1024, ge=8, description="prompt and completion together")
    overlong: Literal["drop", "cut"] = "drop"

    @field_validator("train", "held_out", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> DataSettings:
        if not self.train and self.gateway is None:
            raise ValueError("no rows to train on; give data.train a file, or data.gateway.alias an alias")
        return self


class LoraSettings(_Settings):
    """The adapter's form. `alpha` is twice the rank unless set. Ranks are those an engine can be started with."""

    rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 16
    alpha: float | None = Field(None, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | list[str] = "all-linear"

    @property
    def scale(self) -> float:
        return self.alpha if self.alpha is not None else 2.0 * self.rank


class TrainingSettings(_Settings):
    """The optimisation. LoRA wants about ten times full fine-tuning's learning rate."""

    epochs: float = Field(3.0, gt=0)
    max_steps: int | None = Field(None, ge=1, description="ends the run earlier, or later, than `epochs` would")
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(2e-4, gt=0, le=1)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="the gradient's norm")
    seed: int = Field(0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | None = Field(None, ge=1, description="on a CPU; all that this process may use if unset")
    save_seconds: float = Field(30.0, ge=0, description="between checkpoints")


class GatewayAccess(_Settings):
    url: str | None = None
    key: SecretStr | None = None

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("begins with neither http:// nor https://")
        return value.rstrip("/") if value else None


class PublishSettings(_Settings):
    """Where the adapter goes: into a store that the gateway reads too, or else to the gateway by upload."""

    tenant: str | None = None
    name: str | None = None
    store: str | None = Field(None, description="a directory or an fsspec URL, as the gateway's adapter store")
    parent: str | None = Field(None, description="the version this one replaces, for its lineage")

    @field_validator("tenant", "name")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not is_slug(value):
            raise ValueError("use 1 to 64 of a-z 0-9 . _ -, beginning and ending with a letter or digit")
        return value


class RunSettings(_Settings):
    """Everything about one run."""

    recipe: Literal["sft"] = "sft"
    base_model: Annotated[str, Field(min_length=1, description="its public name, as the gateway serves it")]
    model_path: Path | None = Field(None, description="a local directory that holds it; then no network is used")
    run_dir: Path
    data: DataSettings
    lora: LoraSettings = LoraSettings()
    training: TrainingSettings = TrainingSettings()
    gateway: GatewayAccess = GatewayAccess()
    publish: PublishSettings = PublishSettings()

    @model_validator(mode="after")
    def _parts_agree(self) -> RunSettings:
        named = self.publish.tenant is not None and self.publish.name is not None
        if self.data.gateway is not None and (self.gateway.url is None or self.publish.tenant is None):
            raise ValueError("data.gateway needs gateway.url (or GATEWAY_URL) and publish.tenant")
        if (self.publish.store is not None or self.gateway.url is not None) and not named:
            raise ValueError("publishing needs publish.tenant and publish.name")
        return self

    def essence(self) -> dict[str, Any]:
        """What decides the outcome, as plain values: two runs with equal essence and equal data are the same run."""
        left_out = {"gateway": True, "run_dir": True, "model_path": True, "publish": True}
        return self.model_dump(mode="json", exclude={**left_out, "training": {"threads", "save_seconds"}})


def load(
    path: Path | None, overrides: Iterable[tuple[str, Any]] = (), *, environ: Mapping[str, str] | None = None
) -> RunSettings:
    """Read a config file, lay `overrides` (dotted key, value) over it, and check it. Raises `InvalidConfig`."""
    raw = _read(path) if path is not None else {}
    environ = os.environ if environ is None else environ
    for variable, key in ENVIRONMENT.items():
        if environ.get(variable):
            _set(raw, key, environ[variable])
    for key, value in overrides:
        _set(raw, key, value)
    try:
        return RunSettings.model_validate(raw)
    except ValidationError as error:
        raise _explained(error, path) from None


def prepare_libraries() -> None:
    """Set what torch and tokenizers read when they are loaded, unless it is set already. Call before importing them."""
    for variable, value in _LIBRARIES.items():
        os.environ.setdefault(variable, value)


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
        for key in ("train", "held_out"):
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
