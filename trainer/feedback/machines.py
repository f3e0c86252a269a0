"""What a machine can do, and what a round asks of it: time, memory and cost, as ranges. It loads no model.

    time    = floating-point operations / (what the machine does in a second · the part of it that training gets)
    memory  = weights + LoRA (weight, gradient, two moments) + activations + logits + what the libraries take
    cost    = time · price of an hour

A LoRA's token costs 4 operations a parameter: two forward, two for the gradients of the activations; the frozen weights
need none. A frozen forward pass costs 2.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from trainer.errors import InvalidConfig
from trainer.settings.training import TrainingSettings

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Machine:
    """`speed` in operations a second at full use, `used` the part of it that training gets: least, likely, most."""

    name: str
    speed: float
    used: tuple[float, float, float]
    memory: float
    bandwidth: float | None
    price: float | None
    how: str


# Dense bf16 (no sparsity), memory and bandwidth as their makers state them. The prices are an order of magnitude of
# what an hour costs on demand; they are ours, differ by seller, and are there to be replaced (--price).
_GPUS: dict[str, tuple[float, int, int, float]] = {  # TFLOPS, GB, GB/s, USD an hour
    "B200": (2250, 180, 8000, 6.0),
    "H200": (989, 141, 4800, 4.0),
    "H100": (989, 80, 3350, 3.0),
    "A100": (312, 80, 2039, 2.0),
    "A100-40": (312, 40, 1555, 1.5),
    "L40S": (362, 48, 864, 1.5),
    "A10G": (70, 24, 600, 1.0),
    "L4": (121, 24, 300, 0.8),
    "RTX4090": (165, 24, 1008, 0.5),
}
_GPU_USED = (0.15, 0.3, 0.5)
"""torchtune's and Unsloth's published LoRA rates (research/trainer.md §3) are 0.21 to 0.6 of dense bf16 at 3 to 8 B."""

_CPU_USED = (0.3, 0.6, 1.2)
"""Measured with SmolLM2-135M on two shared cores, by CPU time: 76 to 160 GFLOP/s, where float32 products make 135 to
200. bfloat16, where a CPU has fast products of it, is what is above 1."""


def machine(name: str, *, price: float | None = None) -> Machine:
    """A GPU by its name, or "cpu": this machine, measured for a fifth of a second. Raises `InvalidConfig`."""
    if name.lower() == "cpu":
        cores = len(os.sched_getaffinity(0))
        memory = float(psutil.virtual_memory().total)
        how = f"measured here: float32 matrix products on {cores} cores"
        return Machine("cpu", _products_per_second(), _CPU_USED, memory, None, price, how)
    known = {gpu.lower(): gpu for gpu in _GPUS}
    found = known.get(re.sub(r"^nvidia[ -]?|[ _]", "", name.lower()))
    if found is None:
        raise InvalidConfig(f"--hardware {name} is not in the table", f"name cpu or one of {', '.join(_GPUS)}")
    tflops, memory_gb, bandwidth, usual = _GPUS[found]
    how = f"stated by its maker: {tflops} TFLOPS in dense bf16; nothing was measured"
    return Machine(found, tflops * 1e12, _GPU_USED, memory_gb * 1e9, bandwidth * 1e9, price or usual, how)


@dataclass(frozen=True, slots=True)
class Shape:
    """A base model's size. `how` says where it is known from."""

    parameters: float
    hidden: int
    layers: int
    vocabulary: int
    how: str

    @classmethod
    def of(cls, base_model: str, model_path: Path | None, parameters: float | None = None) -> Shape | None:
        """From the model's config.json, else from `parameters` or a name such as org/Model-8B; None if neither says."""
        if parameters is None and model_path is not None and (found := cls._of_config(model_path / "config.json")):
            return found
        how = "--parameters"
        if parameters is None:
            named = re.search(r"(?<![a-z0-9])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", base_model.lower())
            if named is None:
                return None
            parameters, how = float(named[1]) * {"b": 1e9, "m": 1e6}[named[2]], "its name"
        # Of a usual form: 12 · layers · hidden², 128 times as wide as deep.
        hidden = round((parameters * 128 / 12) ** (1 / 3))
        return cls(parameters, hidden, max(1, hidden // 128), 128_000, how)

    @classmethod
    def _of_config(cls, path: Path) -> Shape | None:
        try:
            config = json.loads(path.read_text("utf-8"))
            hidden, layers, vocabulary = (
                int(config[key]) for key in ("hidden_size", "num_hidden_layers", "vocab_size")
            )
            heads = int(config["num_attention_heads"])
            narrow = int(config.get("num_key_value_heads") or heads) / heads
            layer = hidden * hidden * (2 + 2 * narrow) + 3 * hidden * int(config["intermediate_size"])
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            return None
        embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings", True) else 2)
        return cls(layers * layer + embeddings, hidden, layers, vocabulary, "its config.json")


@dataclass(frozen=True, slots=True)
class Work:
    """A training's amount: `tokens` trained an epoch, `passes` frozen forward passes over them, `longest` row."""

    tokens: int
    epochs: float
    frozen: float
    longest: int
    batch: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds, bytes and money: least, likely, most. `fits`: the most of it is within the machine's memory."""

    machine: str
    how: str
    seconds: tuple[float, float, float]
    memory: tuple[float, float, float]
    cost: tuple[float, float, float] | None
    fits: bool

    def __str__(self) -> str:
        low, likely, high = self.memory
        text = f"{_span(self.seconds)}, {likely / _GIB:.1f} GiB ({low / _GIB:.1f} to {high / _GIB:.1f}) of memory"
        if self.cost is not None:
            text += f", {self.cost[1]:.2f} ({self.cost[0]:.2f} to {self.cost[2]:.2f}) in the price's currency"
        return f"{self.machine}: {text}" + ("" if self.fits else "; it may not fit")


def estimate(shape: Shape, work: Work, on: Machine, training: TrainingSettings, *, rank: int) -> Estimate:
    """What `work` would take on a machine."""
    operations = shape.parameters * work.tokens * (4 * work.epochs + 2 * work.frozen)
    startup = 30.0 + 2 * shape.parameters / 1e9
    slow, likely, fast = on.used
    seconds = tuple(startup + operations / (on.speed * used) for used in (fast, likely, slow))
    memory = _memory(shape, work, training, rank=rank, on_cpu=on.name == "cpu")
    cost = tuple(each / 3600 * on.price for each in seconds) if on.price is not None else None
    spread = (memory * 0.6, memory, memory * 1.6)
    return Estimate(on.name, on.how, _three(seconds), spread, _three(cost) if cost else None, spread[2] <= on.memory)


def _memory(shape: Shape, work: Work, training: TrainingSettings, *, rank: int, on_cpu: bool) -> float:
    number = 4 if on_cpu else 2
    weight = {"none": number, "int8": 1.1, "nf4": 0.6}[training.quantize]
    lora = 7 * 2.2 * rank * shape.hidden * shape.layers * 16  # seven matrices a layer; weight, gradient, two moments
    positions = work.longest * work.batch
    kept = 2 if training.checkpointing else 17  # values a token and layer; attention's own are not kept
    activations = positions * shape.hidden * shape.layers * kept * number
    logits = positions * 0.5 * shape.vocabulary * 12  # only the supervised positions have any
    return shape.parameters * weight + lora + activations + logits + (0.7 if on_cpu else 1.5) * _GIB


def _products_per_second(seconds: float = 0.2, side: int = 1024) -> float:
    """float32 operations a second of this machine's matrix products, had it nothing else to do.

    By the CPU time of the best product in `seconds`: the clock on the wall counts what the neighbours take.
    """
    import numpy as np  # a fifth of a second, and only an estimate needs it

    left = np.random.default_rng(0).random((side, side), dtype=np.float32)
    cores = len(os.sched_getaffinity(0))
    until, best = time.monotonic() + seconds, math.inf
    while time.monotonic() < until:
        began = time.process_time()
        left @ left
        best = min(best, (time.process_time() - began) / cores)
    return 2 * side**3 / max(best, 1e-6)


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    low, likely, high = values
    return (low, likely, high)


def _span(seconds: tuple[float, float, float]) -> str:
    unit: Literal["s", "min", "h"] = "s" if seconds[1] < 90 else "min" if seconds[1] < 5400 else "h"
    low, likely, high = (each / {"s": 1, "min": 60, "h": 3600}[unit] for each in seconds)
    return (
        f"{likely:.0f} {unit} ({low:.0f} to {high:.0f})" if unit != "h" else f"{likely:.1f} h ({low:.1f} to {high:.1f})"
    )
