"""Whether a PEFT directory may be served: read to the last byte, without torch, and refused with what to change.

vLLM checks little: a smaller tensor is copied silently, NaN and pickles are accepted, a name that matches nothing loads
as the base model. What passes here is plain safetensors whose every tensor is a finite LoRA matrix with a place in the
base model. It knows nothing about tenants, stores or engines.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from adapters.base_model import BaseShape, base_revision
from adapters.errors import InvalidAdapter
from adapters.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest
from adapters.peft_config import CONFIG, MAX_CONFIG_BYTES, PeftConfig, read_config
from adapters.tensors import FLOATS, Tensor, finite, read_header

__all__ = ["WEIGHTS", "BaseShape", "Inspection", "Limits", "base_revision", "inspect", "open_plain"]

WEIGHTS = "adapter_model.safetensors"
_CARD = "README.md"  # PEFT's save_pretrained always writes one; it is never published
_CHUNK = 4 * 1024 * 1024
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"base_model\.model\.(?P<module>[A-Za-z_]\w*(?:\.\w+)*)\.lora_(?P<side>[AB])\.weight\Z", re.ASCII)
_LAYER = re.compile(r"(?:.*\.)?layers\.(?P<layer>[0-9]{1,4})\.(?P<module>.+)\Z")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes. `max_rank` beyond 512 can be served by no vLLM."""

    max_rank: int = 512
    max_bytes: int = 1024 * 1024 * 1024
    max_tensors: int = 20_000


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found. `parameters` counts weights, `bytes` the files; `files` maps each file to its SHA-256 in hex."""

    rank: int
    alpha: float
    target_modules: list[str]
    base_model: str
    parameters: int
    bytes: int
    config: PeftConfig
    files: Mapping[str, str] = field(default_factory=dict)


def inspect(
    directory: Path, *, limits: Limits | None = None, base: BaseShape | None = None, base_model: str | None = None
) -> Inspection:
    """Read a PEFT directory and refuse it unless it can be served. Raises `InvalidAdapter`; touches nothing.

    `base` adds the check of each tensor against the base model's layers, `base_model` that the adapter is for that
    model. A manifest, where there is one, must tell the truth about the other files.
    """
    limits = limits or Limits()
    sizes = _sizes(directory, limits)
    with open_plain(directory / CONFIG) as file:
        text = file.read(MAX_CONFIG_BYTES + 1)
    config = read_config(text)
    if config.rank > limits.max_rank:
        remedy = "retrain with a lower rank, or raise max_lora_rank"
        raise InvalidAdapter(f"rank {config.rank}; this engine allows {limits.max_rank}: {remedy}.")
    if base_model is not None and config.base_model != base_model:
        raise InvalidAdapter(
            f"trained on {config.base_model!r}, but {base_model!r} is served: train on the served model."
        )
    with open_plain(directory / WEIGHTS) as file:
        tensors = read_header(file, sizes[WEIGHTS], WEIGHTS).tensors
        _check_tensors(tensors, config, limits)
        if base is not None:
            _check_places(tensors, config, base)
        digest = _check_numbers(file, tensors)
    files = {CONFIG: hashlib.sha256(text).hexdigest(), WEIGHTS: digest}
    if MANIFEST in sizes:
        check_manifest(Manifest.read(directory), config, files)
    return Inspection(
        rank=config.rank,
        alpha=config.alpha,
        target_modules=list(config.target_modules),
        base_model=config.base_model,
        parameters=sum(t.shape[0] * t.shape[1] for t in tensors),
        bytes=sum(sizes[name] for name in sizes if name != _CARD),
        config=config,
        files=files,
    )


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading, but neither through a symbolic link nor on a device. Raises `InvalidAdapter`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidAdapter(f"{path.name} cannot be opened as a plain file: put the file itself there.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidAdapter(f"{path.name} is not a plain file: put the file itself there.")
    return os.fdopen(descriptor, "rb")


def check_manifest(manifest: Manifest, config: PeftConfig, files: Mapping[str, str]) -> None:
    """Refuse a manifest that tells another story than the files. One without `files` is not published yet."""
    claims = (("rank", manifest.rank, config.rank), ("alpha", manifest.alpha, config.alpha))
    for what, claimed, found in claims:
        if claimed != found:
            raise InvalidAdapter(f"{MANIFEST} says {what} {claimed:g}, {CONFIG} says {found:g}: publish the run again.")
    if not manifest.files:
        return  # not published yet: files and target modules are filled in then
    if set(manifest.target_modules) != set(config.target_modules):
        raise InvalidAdapter(f"{MANIFEST} and {CONFIG} name different target modules: publish the run again.")
    if manifest.files != files:
        raise InvalidAdapter(f"{MANIFEST} was written for other files: publish the run again.")
    if manifest.base_model != config.base_model:
        raise InvalidAdapter(f"{MANIFEST} and {CONFIG} name different base models: publish the run again.")


def _sizes(directory: Path, limits: Limits) -> dict[str, int]:
    caps = {CONFIG: MAX_CONFIG_BYTES, WEIGHTS: limits.max_bytes, MANIFEST: MAX_MANIFEST_BYTES, _CARD: limits.max_bytes}
    sizes: dict[str, int] = {}
    try:
        entries = list(os.scandir(directory))
    except OSError as error:
        raise InvalidAdapter(f"there is no adapter directory: name one that holds {CONFIG} and {WEIGHTS}.") from error
    for entry in entries:
        if entry.name not in caps:
            shown = entry.name[:80].encode("utf-8", "replace").decode()
            raise InvalidAdapter(f"{shown!r} does not belong into an adapter: leave only {CONFIG} and {WEIGHTS}.")
        if not entry.is_file(follow_symlinks=False):
            raise InvalidAdapter(f"{entry.name} is not a plain file: put the file itself there, not a link.")
        sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        if sizes[entry.name] > caps[entry.name]:
            remedy = "retrain with a lower rank or fewer target modules"
            raise InvalidAdapter(
                f"{entry.name} has {sizes[entry.name]} bytes; {caps[entry.name]} are allowed: {remedy}."
            )
    for name in (CONFIG, WEIGHTS):
        if name not in sizes:
            raise InvalidAdapter(f"there is no {name}: save the adapter with PEFT's save_pretrained (safetensors).")
    return sizes


def _check_tensors(tensors: tuple[Tensor, ...], config: PeftConfig, limits: Limits) -> None:
    """Every tensor is half of a LoRA pair of the config's rank on one of its target modules; each target has some."""
    if not tensors or len(tensors) > limits.max_tensors:
        raise InvalidAdapter(
            f"{WEIGHTS} holds {len(tensors)} tensors; 1 to {limits.max_tensors} can be served: save it again."
        )
    sides: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        module, side = _half(tensor)
        sides.setdefault(module, {})[side] = tensor
        if tensor.dtype not in FLOATS:
            raise InvalidAdapter(f"{_short(tensor)} is {tensor.dtype}: save it as float32, float16 or bfloat16.")
        rank_at = 0 if side == "A" else 1
        if len(tensor.shape) != 2 or 0 in tensor.shape or tensor.shape[rank_at] != config.rank:
            shape = " by ".join(map(str, tensor.shape))
            raise InvalidAdapter(
                f"{_short(tensor)} is {shape}, but {CONFIG} says r = {config.rank}: save both from one model."
            )
    targets = set(config.target_modules)
    unused = set(targets)
    for module, pair in sides.items():
        if len(pair) != 2:
            raise InvalidAdapter(f"{module[:120]} has only one of lora_A and lora_B: save the adapter again.")
        matched = targets.intersection(_suffixes(module))
        if not matched:
            raise InvalidAdapter(f"{module[:120]} is none of the target_modules in {CONFIG}: save both from one model.")
        unused -= matched
    if unused:
        raise InvalidAdapter(
            f"{CONFIG} targets {min(unused)!r}, but {WEIGHTS} has no tensor for it: save both from one model."
        )


def _suffixes(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _half(tensor: Tensor) -> tuple[str, str]:
    match = _TENSOR.match(tensor.name)
    if match is None:
        expected = f"{_PREFIX}<module>.lora_A.weight"
        raise InvalidAdapter(
            f"{_short(tensor)} is not named {expected}: train a plain LoRA on linear layers, saved by PEFT."
        )
    module = match["module"]
    if any(part in ("base_layer", "base_model", "embed_tokens", "lm_head") for part in module.split(".")):
        raise InvalidAdapter(
            f"{_short(tensor)} adapts the embeddings or the head: target the layers' projections only."
        )
    return module, match["side"]


def _check_places(tensors: tuple[Tensor, ...], config: PeftConfig, base: BaseShape) -> None:
    """Every tensor fits a linear layer of the base model exactly, and no layer that should have one lacks it."""
    wanted = set(range(base.layers)) if config.layers is None else set(config.layers)
    seen: dict[str, set[int]] = {}
    for tensor in tensors:
        module, side = _half(tensor)
        shape = base.linear.get(module)
        if shape is None:
            raise InvalidAdapter(
                f"the served base model has no linear layer {module[:120]}: train on the served base model."
            )
        have, need = (tensor.shape[1], shape[0]) if side == "A" else (tensor.shape[0], shape[1])
        if have != need:
            raise InvalidAdapter(
                f"{_short(tensor)} is {have} wide; the base model's layer is {need}: train on the served model."
            )
        layer = _LAYER.match(module)
        if layer is not None:
            seen.setdefault(layer["module"], set()).add(int(layer["layer"]))
    for name, found in seen.items():
        if found != wanted:
            odd = min(found ^ wanted)
            raise InvalidAdapter(
                f"{name[:80]} is not adapted in the layers it should be (see layer {odd}): save the adapter again."
            )


def _check_numbers(file: BinaryIO, tensors: tuple[Tensor, ...]) -> str:
    """Read the whole file once: its SHA-256, all numbers finite, and something trained (some lora_B is not zero)."""
    file.seek(0)
    digest = hashlib.sha256(file.read(tensors[0].begin))
    trained = False
    for tensor in tensors:
        left = tensor.end - tensor.begin
        while left:
            data = file.read(min(left, _CHUNK))
            if not data:
                raise InvalidAdapter(f"{WEIGHTS} changed while it was read: publish a finished directory.")
            left -= len(data)
            digest.update(data)
            if not finite(tensor.dtype, data):
                raise InvalidAdapter(
                    f"{_short(tensor)} holds NaN or infinity: the training diverged; lower the learning rate."
                )
            trained = trained or (".lora_B." in tensor.name and data.count(0) != len(data))
    if not trained:
        raise InvalidAdapter("every lora_B is zero, so the answers would be the base model's: publish after training.")
    return digest.hexdigest()


def _short(tensor: Tensor) -> str:
    return tensor.name.removeprefix(_PREFIX)[:120]
