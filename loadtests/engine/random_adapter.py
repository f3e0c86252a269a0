"""Makes small LoRA adapters with random weights for a Llama-like base: each has its own answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ATTENTION = ("q_proj", "v_proj")
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapter(
    directory: Path,
    base: Path,
    *,
    seed: int,
    rank: int = 8,
    strength: float = 1.0,
    targets: Sequence[str] = ATTENTION,
) -> Path:
    """A PEFT directory for the model in `base`. At strength 1 greedy answers soon differ from the base's."""
    shapes = _shapes(base)
    layers = json.loads((base / "config.json").read_text())["num_hidden_layers"]
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(layers):
        for target in targets:
            block = "mlp" if target in ("gate_proj", "up_proj", "down_proj") else "self_attn"
            name = f"base_model.model.model.layers.{layer}.{block}.{target}"
            inputs, outputs = shapes[target]
            down = random.standard_normal((rank, inputs)) / np.sqrt(inputs)
            up = random.standard_normal((outputs, rank)) / np.sqrt(rank) * strength
            tensors[f"{name}.lora_A.weight"] = down.astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = up.astype(np.float32)
    directory.mkdir(parents=True)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(targets),
        "inference_mode": True,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def _shapes(base: Path) -> dict[str, tuple[int, int]]:
    """Each linear layer's (inputs, outputs)."""
    config = json.loads((base / "config.json").read_text())
    hidden, heads, middle = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // heads
    keys = config["num_key_value_heads"] * head
    return {
        "q_proj": (hidden, heads * head),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (heads * head, hidden),
        "gate_proj": (hidden, middle),
        "up_proj": (hidden, middle),
        "down_proj": (middle, hidden),
    }
