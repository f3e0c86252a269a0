"""Small adapters made without torch: PEFT directories for a base model of 2 layers, 64 wide. Any test may use them."""

from __future__ import annotations

import json
import random
import struct
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.manifest import Lineage, Manifest
from adapters.store import AdapterStore, Published

BASE_MODEL = "demo/tiny"
BASE_CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
}
TARGETS = ("q_proj", "v_proj")
_PLACES = {
    "q_proj": ("self_attn.q_proj", 64, 64),
    "k_proj": ("self_attn.k_proj", 64, 32),
    "v_proj": ("self_attn.v_proj", 64, 32),
    "o_proj": ("self_attn.o_proj", 64, 64),
    "gate_proj": ("mlp.gate_proj", 64, 128),
    "up_proj": ("mlp.up_proj", 64, 128),
    "down_proj": ("mlp.down_proj", 128, 64),
}

Tensors = dict[str, tuple[str, tuple[int, ...], bytes]]
"""name → (dtype, shape, data)"""


def lora_tensors(*, rank: int = 4, targets: Sequence[str] = TARGETS, seed: int = 0, layers: int = 2) -> Tensors:
    """float32 LoRA pairs with small random numbers, named as PEFT names them."""
    numbers = random.Random(seed)
    tensors: Tensors = {}
    for layer in range(layers):
        for target in targets:
            place, inputs, outputs = _PLACES[target]
            for side, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
                items = [numbers.uniform(-0.1, 0.1) for _ in range(shape[0] * shape[1])]
                name = f"base_model.model.model.layers.{layer}.{place}.lora_{side}.weight"
                tensors[name] = ("F32", shape, struct.pack(f"<{len(items)}f", *items))
    return tensors


def safetensors(tensors: Tensors, *, metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file."""
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values())


def peft_config(*, rank: int = 4, targets: Sequence[str] = TARGETS, **changes: Any) -> dict[str, Any]:
    """What PEFT 0.21 writes into adapter_config.json for a LoRA, with `changes`."""
    off = (
        "alora_invocation_tokens arrow_config auto_mapping corda_config eva_config exclude_modules kasa_config "
        "layer_replication layers_pattern layers_to_transform lora_ga_config megatron_config modules_to_save "
        "monteclora_config revision target_parameters trainable_token_indices use_bdlora velora_config"
    )
    config: dict[str, Any] = dict.fromkeys(off.split())
    config |= {"alpha_pattern": {}, "rank_pattern": {}, "loftq_config": {}, "bias": "none", "fan_in_fan_out": False}
    config |= {"ensure_weight_tying": False, "inference_mode": True, "init_lora_weights": True, "lora_bias": False}
    config |= {"lora_dropout": 0.05, "megatron_core": "megatron.core", "peft_type": "LORA", "peft_version": "0.21.2"}
    config |= {"qalora_group_size": 16, "task_type": "CAUSAL_LM", "use_dora": False, "use_qalora": False}
    config |= {"use_rslora": False, "base_model_name_or_path": BASE_MODEL, "r": rank, "lora_alpha": 2 * rank}
    return config | {"target_modules": list(targets)} | changes


def write_adapter(
    directory: Path,
    *,
    rank: int = 4,
    targets: Sequence[str] = TARGETS,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    tensors: Tensors | None = None,
) -> Path:
    """Write a PEFT directory as a trainer leaves it (no manifest); different seeds are different weights."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(peft_config(rank=rank, targets=targets) if config is None else config)
    (directory / "adapter_config.json").write_text(text)
    made = lora_tensors(rank=rank, targets=targets, seed=seed) if tensors is None else tensors
    (directory / "adapter_model.safetensors").write_bytes(safetensors(made))
    return directory


def manifest(*, rank: int = 4, targets: Sequence[str] = TARGETS, run_id: str = "run-1", **changes: Any) -> Manifest:
    """The manifest that goes with `write_adapter`."""
    fields: dict[str, Any] = {
        "base_model": BASE_MODEL,
        "rank": rank,
        "alpha": 2.0 * rank,
        "target_modules": list(targets),
        "lineage": Lineage(run_id=run_id, dataset_digest="sha256:" + "0" * 64),
        "created_at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    return Manifest(**(fields | changes))


def write_base(directory: Path, **changes: Any) -> Path:
    """The config.json of the base model the adapters fit."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(BASE_CONFIG | changes))
    return directory


def publish(
    store: AdapterStore, scratch: Path, *, seed: int = 0, tenant: str = "acme", name: str = "support"
) -> Published:
    """A new version of the weights that `seed` stands for."""
    directory = write_adapter(scratch / uuid.uuid4().hex, seed=seed)
    return store.publish(directory, tenant=tenant, name=name, manifest=manifest())
