"""What may be served, and the sentence with which everything else is refused."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from adapters.errors import InvalidAdapter
from adapters.package import pack
from adapters.weights import BaseShape, Limits, inspect
from tests.adapters.refusal import refusal
from tests.adapters.sample import (
    BASE_MODEL,
    Tensors,
    lora_tensors,
    manifest,
    peft_config,
    write_adapter,
    write_base,
)

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FIRST_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
FIRST_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.fixture
def base(tmp_path: Path) -> BaseShape:
    return BaseShape.of(write_base(tmp_path / "base"))


def test_a_trained_adapter_passes_with_its_numbers(tmp_path: Path, base: BaseShape) -> None:
    found = inspect(write_adapter(tmp_path / "a", rank=4, targets=ALL), base=base, base_model=BASE_MODEL)
    assert (found.rank, found.alpha, found.base_model) == (4, 8.0, BASE_MODEL)
    assert found.target_modules == sorted(ALL)
    assert found.parameters == 2 * 4 * (64 + 64 + 64 + 32 + 64 + 32 + 64 + 64 + 64 + 128 + 64 + 128 + 128 + 64)
    assert found.bytes == sum(entry.stat().st_size for entry in (tmp_path / "a").iterdir())


def test_the_model_card_that_peft_writes_is_tolerated(tmp_path: Path) -> None:
    (write_adapter(tmp_path / "a") / "README.md").write_text("# a card")
    inspect(tmp_path / "a")


def changed(name: str, **changes: Any) -> Tensors:
    tensors = lora_tensors()
    dtype, shape, data = tensors[name]
    tensors[name] = (changes.get("dtype", dtype), changes.get("shape", shape), changes.get("data", data))
    return tensors


def renamed(old: str, new: str) -> Tensors:
    return {new if name == old else name: tensor for name, tensor in lora_tensors().items()}


def with_number(name: str, value: float) -> Tensors:
    data = bytearray(lora_tensors()[name][2])
    data[-4:] = struct.pack("<f", value)
    return changed(name, data=bytes(data))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "holds 0 tensors"),
        (with_number(FIRST_A, math.nan), "q_proj.lora_A.weight holds NaN or infinity"),
        (with_number(FIRST_B, -math.inf), "lower the learning rate"),
        (changed(FIRST_A, shape=(3, 64), data=b"\1" * 4 * 3 * 64), "is 3 by 64, but"),
        (changed(FIRST_A, shape=(4 * 64,)), "is 256, but"),
        (changed(FIRST_A, dtype="F64", data=b"\1" * 8 * 256), "is F64: save it as float32"),
        (changed(FIRST_A, shape=(4, 0), data=b""), "is 4 by 0"),
        (renamed(FIRST_A, FIRST_A.replace("base_model.model.", "")), "is not named"),
        (renamed(FIRST_A, FIRST_A.replace("lora_A.weight", "lora_embedding_A")), "is not named"),
        (renamed(FIRST_A, FIRST_A.replace("lora_A.weight", "lora_A.default.weight")), "is not named"),
        (renamed(FIRST_A, FIRST_A.replace("lora_A", "lora_magnitude_vector")), "is not named"),
        (renamed(FIRST_A, FIRST_A + "\n"), "is not named"),
        (renamed(FIRST_A, "base_model.model.lm_head.lora_A.weight"), "embeddings or the head"),
        (renamed(FIRST_A, "base_model.model.base_model.model.q_proj.lora_A.weight"), "embeddings or the head"),
        (renamed(FIRST_A, FIRST_A.replace("q_proj", "v_proj2")), "only one of lora_A and lora_B"),
    ],
)
def test_tensors_that_are_no_lora_are_refused(tmp_path: Path, tensors: Tensors, says: str) -> None:
    assert says in refusal(write_adapter(tmp_path / "a", tensors=tensors))


def test_an_adapter_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    tensors = {
        name: (dtype, shape, b"\0" * len(data) if ".lora_B." in name else data)
        for name, (dtype, shape, data) in lora_tensors().items()
    }
    assert "publish after training" in refusal(write_adapter(tmp_path / "a", tensors=tensors))


def test_an_adapter_of_a_smaller_sibling_is_refused(tmp_path: Path) -> None:
    """vLLM copies a smaller tensor into the larger slot without a word."""
    larger = BaseShape.of(write_base(tmp_path / "larger", hidden_size=96, num_attention_heads=6))
    assert "is 64 wide; the base model's layer is 96" in refusal(write_adapter(tmp_path / "a"), base=larger)


def test_an_adapter_with_other_layers_is_refused(tmp_path: Path, base: BaseShape) -> None:
    more = write_adapter(tmp_path / "more", tensors=lora_tensors(layers=3))
    assert "no linear layer model.layers.2" in refusal(more, base=base)
    fewer = write_adapter(tmp_path / "fewer", tensors=lora_tensors(layers=1))
    assert "see layer 1" in refusal(fewer, base=base)
    meant = peft_config(layers_to_transform=[0])
    inspect(write_adapter(tmp_path / "meant", tensors=lora_tensors(layers=1), config=meant), base=base)


def test_an_adapter_of_another_base_model_is_refused(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    assert "train on the served model" in refusal(directory, base_model="org/other")


def test_limits_are_the_servers(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a", rank=16)
    says = refusal(directory, limits=Limits(max_rank=8))
    assert says == "rank 16; this engine allows 8: retrain with a lower rank, or raise max_lora_rank."
    assert "100 are allowed" in refusal(directory, limits=Limits(max_bytes=100))
    assert "1 to 3 can be served" in refusal(directory, limits=Limits(max_tensors=3))


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "training_args.bin", "tokenizer.json", "x.safetensors", ".hidden"]
)
def test_a_file_that_does_not_belong_is_refused(tmp_path: Path, name: str) -> None:
    (write_adapter(tmp_path / "a") / name).write_bytes(b"x")
    assert f"{name!r} does not belong into an adapter" in refusal(tmp_path / "a")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_and_a_link_are_refused(tmp_path: Path, name: str) -> None:
    directory = write_adapter(tmp_path / "a")
    (directory / name).rename(tmp_path / name)
    assert f"there is no {name}" in refusal(directory)
    (directory / name).symlink_to(tmp_path / name)
    assert "not a plain file" in refusal(directory)
    with pytest.raises(InvalidAdapter, match="plain file"):
        pack(directory, tmp_path / "packed", manifest())
    (directory / name).unlink()
    os.mkfifo(directory / name)
    assert "not a plain file" in refusal(directory)
    with pytest.raises(InvalidAdapter, match="plain file"):
        pack(directory, tmp_path / "packed-too", manifest())


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "there is no adapter directory" in refusal(tmp_path / "nowhere")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    directory = write_adapter(tmp_path / "a")
    weights = directory / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "was cut or padded" in refusal(directory)
