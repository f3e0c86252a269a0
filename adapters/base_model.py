"""The base model as an adapter sees it: the shape of each linear layer, and a fingerprint of its weights.

Read from a local model directory without torch. It knows nothing about adapters' files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters import strictjson
from adapters.errors import InvalidAdapter, InvalidBase
from adapters.tensors import Header, read_header

_LLAMA_LIKE = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "smollm3", "olmo2", "granite"})
"""`model_type`s whose linear layers are named and shaped as Llama's."""

_EDGE = 64 * 1024
_UNTOLD = frozenset({"_name_or_path", "transformers_version"})  # they differ between copies of the same model


@dataclass(frozen=True, slots=True)
class BaseShape:
    """The number of layers, and each linear module (`model.layers.0.self_attn.q_proj`) → (inputs, outputs)."""

    layers: int
    linear: Mapping[str, tuple[int, int]] = field(repr=False)

    @classmethod
    def of(cls, model_dir: Path) -> BaseShape:
        """From `config.json` for Llama-like models, else from the model's own safetensors. Raises `InvalidBase`."""
        config = _config(model_dir)
        layers = _count(config, "num_hidden_layers")
        if config.get("model_type") in _LLAMA_LIKE:
            return cls(layers, _llama_like(config, layers))
        linear: dict[str, tuple[int, int]] = {}
        for _, header in _weights(model_dir):
            for tensor in header.tensors:
                if tensor.name.endswith(".weight") and len(tensor.shape) == 2:
                    linear[tensor.name.removesuffix(".weight")] = (tensor.shape[1], tensor.shape[0])
        return cls(layers, linear)


def base_revision(model_dir: Path) -> str:
    """`sha256:…` over the config and each weight file's size, header and first and last 64 KiB of data.

    It tells two models apart in milliseconds, however large; it is no proof against somebody who edits the middle.
    Raises `InvalidBase`.
    """
    told = {key: value for key, value in _config(model_dir).items() if key not in _UNTOLD}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for path, header in _weights(model_dir):
        size = path.stat().st_size
        digest.update(f"\n{path.name}\n{size}\n".encode())
        digest.update(header.raw)
        with path.open("rb") as file:
            file.seek(8 + len(header.raw))
            digest.update(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            digest.update(file.read(_EDGE))
    return f"sha256:{digest.hexdigest()}"


def _config(model_dir: Path) -> dict[str, Any]:
    try:
        config = strictjson.parse((model_dir / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidBase(
            "the base model's directory has no readable config.json: name a directory with one."
        ) from error
    if not isinstance(config, dict):
        raise InvalidBase(
            "the base model's config.json is not an object: name a model directory in Hugging Face's format."
        )
    return config


def _weights(model_dir: Path) -> list[tuple[Path, Header]]:
    found = []
    for path in sorted(model_dir.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                found.append((path, read_header(file, path.stat().st_size, path.name)))
        except InvalidAdapter as error:
            raise InvalidBase(
                f"the base model's weights cannot be read: {path.name} is not a whole safetensors file."
            ) from error
    if not found:
        raise InvalidBase(
            "the base model's directory holds no *.safetensors: save the model with save_pretrained first."
        )
    return found


def _count(config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or value < 1:
        raise InvalidBase(f"the base model's config.json has no count {key!r}: name a text model's directory.")
    return value


def _llama_like(config: dict[str, Any], layers: int) -> dict[str, tuple[int, int]]:
    hidden, inner = _count(config, "hidden_size"), _count(config, "intermediate_size")
    heads = _count(config, "num_attention_heads")
    head = _count(config, "head_dim", hidden // heads)
    wide, narrow = heads * head, _count(config, "num_key_value_heads", heads) * head
    shapes = {
        "self_attn.q_proj": (hidden, wide),
        "self_attn.k_proj": (hidden, narrow),
        "self_attn.v_proj": (hidden, narrow),
        "self_attn.o_proj": (wide, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
    return {f"model.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in shapes.items()}
