"""`adapter_config.json`, read by allow-list and written anew: what a LoRA may ask of a server, and nothing more.

vLLM 0.32 checks little of it (FACTS §1) and compiles the keys of `rank_pattern` as regular expressions; PEFT imports
modules named by `auto_mapping`. So a key we do not know must be off, and what we publish is written by us.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

from adapters import strictjson
from adapters.errors import InvalidAdapter

CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 256 * 1024
MAX_SCALING = 10_000.0
"""alpha/rank beyond this overflows half-precision weights when the engine multiplies it in; usual are 1 to 4."""

_OFF: tuple[Any, ...] = (None, False, "", "none", [], {})
_IGNORED = frozenset({
    # They steer training or initialisation, and mean nothing to trained weights.
    "lora_dropout", "inference_mode", "revision", "peft_version", "megatron_core", "qalora_group_size",
    "runtime_config", "eva_config", "lora_ga_config", "ensure_weight_tying",
})  # fmt: skip
_MEANT = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "target_modules", "use_rslora",
    "init_lora_weights", "layers_to_transform",
})  # fmt: skip
_INITS = frozenset({"gaussian", "eva", "orthogonal", "lora_ga"})
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*\Z")
_REMEDIES = {
    "use_dora": "vLLM cannot serve DoRA: train with use_dora=False",
    "bias": 'vLLM cannot serve biases: train with bias="none"',
    "modules_to_save": "vLLM serves no fully trained modules beside the LoRA: train without modules_to_save",
    "rank_pattern": "one rank for all modules: train without rank_pattern",
    "alpha_pattern": "one alpha for all modules: train without alpha_pattern",
    "auto_mapping": 'it makes the loader import code: set task_type="CAUSAL_LM" when saving',
    "auto_map": "it makes the loader import code: remove it",
}


@dataclass(frozen=True, slots=True)
class PeftConfig:
    """What a served LoRA is made of. `layers` is `None` when every layer is adapted."""

    base_model: str
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    rslora: bool
    layers: tuple[int, ...] | None

    def to_json(self, base_model: str) -> bytes:
        """The file as we publish it: PEFT's keys, the base model's public name, the same bytes for the same meaning."""
        fields = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": self.rank,
            "lora_alpha": int(self.alpha) if self.alpha.is_integer() else self.alpha,
            "target_modules": list(self.target_modules),
            "use_rslora": self.rslora,
            "layers_to_transform": None if self.layers is None else list(self.layers),
            "bias": "none",
            "use_dora": False,
            "modules_to_save": None,
            "init_lora_weights": True,
            "inference_mode": True,
        }
        return json.dumps(fields, indent=2, sort_keys=True).encode() + b"\n"


def read_config(data: bytes) -> PeftConfig:
    """Check `adapter_config.json`. Raises `InvalidAdapter` with the key and what to change."""
    try:
        config = strictjson.parse(data)
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        raise _refused(f"cannot be read: {error}", "save the adapter again with PEFT's save_pretrained") from error
    _check_kind(config)
    for key, value in config.items():
        if (
            key not in _MEANT
            and key not in _IGNORED
            and not any(value == off and type(value) is type(off) for off in _OFF)
        ):
            raise _refused(f"sets {key[:80]!r}", _REMEDIES.get(key, "the engine would not honour it: train without it"))
    rank = _rank(config.get("r"))
    return PeftConfig(
        base_model=_base_model(config.get("base_model_name_or_path")),
        rank=rank,
        alpha=_alpha(config.get("lora_alpha"), rank),
        target_modules=_targets(config.get("target_modules")),
        rslora=_flag(config.get("use_rslora"), "use_rslora"),
        layers=_layers(config.get("layers_to_transform")),
    )


def _refused(what: str, remedy: str) -> InvalidAdapter:
    return InvalidAdapter(f"{CONFIG} {what}; {remedy}.")


def _check_kind(config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise _refused("is not of peft_type LORA", "train a LoRA")
    if config.get("task_type") not in ("CAUSAL_LM", None):
        raise _refused("is not for a language model", 'train with task_type="CAUSAL_LM"')
    init = config.get("init_lora_weights", True)
    if not (init is None or isinstance(init, bool) or (isinstance(init, str) and init.lower() in _INITS)):
        raise _refused(
            f"has init_lora_weights={str(init)[:40]!r}, which changes the base model's weights too",
            "convert it with PEFT's path_initial_model_for_weight_conversion, or train with the default initialisation",
        )


def _base_model(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 512:
        raise _refused("names no base model", "set base_model_name_or_path to the base model's name")
    return value


def _rank(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 512:
        raise _refused("has no rank r from 1 to 512", "retrain with such a rank")
    return value


def _alpha(value: Any, rank: int) -> float:
    if type(value) not in (int, float) or not 0 < value <= MAX_SCALING * rank or not math.isfinite(value):
        raise _refused(
            f"has no lora_alpha above 0 and up to {MAX_SCALING * rank:g}", "retrain with lora_alpha near the rank"
        )
    return float(value)


def _targets(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        remedy = "list the modules' names, such as q_proj; PEFT's save_pretrained writes the list of a trained model"
        raise _refused("gives target_modules as a rule instead of a list", remedy)
    if not isinstance(value, list) or not 1 <= len(value) <= 1024:
        raise _refused("lists no target_modules", "list the modules' names, such as q_proj")
    for name in value:
        if not isinstance(name, str) or len(name) > 200 or _MODULE.match(name) is None:
            raise _refused(f"has the target module {str(name)[:80]!r}", "use literal module names, such as q_proj")
    return tuple(sorted(set(value)))


def _flag(value: Any, key: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise _refused(
            f"has a {key} that is neither true nor false", "save the adapter again with PEFT's save_pretrained"
        )
    return bool(value)


def _layers(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    layers = value if isinstance(value, list) else [value]
    if not layers or len(layers) > 4096 or not all(type(layer) is int and 0 <= layer < 4096 for layer in layers):
        raise _refused("has a layers_to_transform that is no list of layer numbers", "list them, or leave it out")
    return tuple(sorted(set(layers)))
