"""A small LoRA adapter with random weights, as the tar that the gateway takes: for aliases to point to under load.

It fits a base model of one layer, 64 wide; an engine that reads no weights does not mind.
"""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile

_RANK = 8
_WIDE = 64
_TARGETS = ("q_proj", "v_proj")


def tar_of_an_adapter(base_model: str, *, seed: int) -> bytes:
    """A plain tar with `adapter_config.json` and `adapter_model.safetensors`; other seeds are other weights."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": _RANK,
        "lora_alpha": _RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(_TARGETS),
        "inference_mode": True,
    }
    files = {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": _safetensors(seed)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _safetensors(seed: int) -> bytes:
    numbers = random.Random(seed)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for target in _TARGETS:
        for side, shape in (("A", (_RANK, _WIDE)), ("B", (_WIDE, _RANK))):
            values = [numbers.uniform(-0.1, 0.1) for _ in range(_RANK * _WIDE)]
            raw = struct.pack(f"<{len(values)}f", *values)
            name = f"base_model.model.model.layers.0.self_attn.{target}.lora_{side}.weight"
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data
