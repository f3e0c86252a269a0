"""What may be served, and the sentence with which everything else is refused."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import InvalidAdapter, InvalidBase
from adapters.manifest import Manifest
from adapters.package import pack
from adapters.peft_config import read_config
from adapters.weights import BaseShape, Limits, base_revision, inspect
from tests.adapters.sample import (
    BASE_MODEL,
    Tensors,
    lora_tensors,
    manifest,
    peft_config,
    safetensors,
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


def refusal(directory: Path, **options: Any) -> str:
    with pytest.raises(InvalidAdapter) as caught:
        inspect(directory, **options)
    sentence = str(caught.value)
    assert sentence.endswith(".") and str(directory) not in sentence
    return sentence


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"peft_type": "IA3"}, "not of peft_type LORA; train a LoRA"),
        ({"task_type": "SEQ_CLS"}, "not for a language model"),
        ({"use_dora": True}, "vLLM cannot serve DoRA"),
        ({"bias": "all"}, "vLLM cannot serve biases"),
        ({"lora_bias": True}, "'lora_bias'; the engine would not honour it"),
        ({"modules_to_save": ["lm_head"]}, "without modules_to_save"),
        ({"rank_pattern": {"(a|aa)+b": 8}}, "without rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "without alpha_pattern"),
        ({"auto_mapping": {"parent_library": "os"}}, "makes the loader import code"),
        ({"auto_map": {"AutoConfig": "evil.Config"}}, "makes the loader import code"),
        ({"trainable_token_indices": [1]}, "'trainable_token_indices'"),
        ({"kasa_config": {"beta": 1}}, "'kasa_config'"),
        ({"vllm_lora_scaling_factor": 3.0}, "'vllm_lora_scaling_factor'"),
        ({"something_new": 1}, "'something_new'"),
        ({"fan_in_fan_out": True}, "'fan_in_fan_out'"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base model's weights"),
        ({"init_lora_weights": {}}, "changes the base model's weights"),
        ({"target_modules": "all-linear"}, "rule instead of a list; list the modules"),
        ({"target_modules": ["(a|aa)+b"]}, "use literal module names"),
        ({"target_modules": ["q_proj", 3]}, "use literal module names"),
        ({"target_modules": []}, "lists no target_modules"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "targets 'k_proj', but"),
        ({"target_modules": ["q_proj"]}, "v_proj is none of the target_modules"),
        ({"lora_alpha": math.inf}, "Infinity is not a JSON number"),
        ({"lora_alpha": 0}, "no lora_alpha above 0"),
        ({"lora_alpha": -8}, "no lora_alpha above 0"),
        ({"lora_alpha": 1e300}, "no lora_alpha above 0"),
        ({"lora_alpha": True}, "no lora_alpha above 0"),
        ({"lora_alpha": "16"}, "no lora_alpha above 0"),
        ({"r": 0}, "no rank r"),
        ({"r": 8.0}, "no rank r"),
        ({"r": 1024}, "no rank r"),
        ({"r": 8}, "says r = 8"),
        ({"use_rslora": "yes"}, "use_rslora that is neither"),
        ({"layers_to_transform": [-1]}, "layers_to_transform"),
        ({"base_model_name_or_path": None}, "names no base model"),
    ],
)
def test_a_config_that_asks_for_more_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    directory = write_adapter(tmp_path / "a", config=peft_config() | change)
    assert says in refusal(directory)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b'{"r":1,"r":2}', b"[" * 100_000, b"null"])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: bytes) -> None:
    directory = write_adapter(tmp_path / "a")
    (directory / "adapter_config.json").write_bytes(text)
    assert "cannot be read" in refusal(directory)


@pytest.mark.parametrize("init", ["gaussian", "eva", "orthogonal", True, False])
def test_initialisations_that_leave_the_base_alone_pass(tmp_path: Path, init: Any) -> None:
    inspect(write_adapter(tmp_path / "a", config=peft_config(init_lora_weights=init)))


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


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rank": 8}, "says rank 8"),
        ({"alpha": 9.0}, "says alpha 9"),
        ({"target_modules": ["q_proj"]}, "different target modules"),
        ({"base_model": "org/other"}, "different base models"),
        ({"files": {"adapter_model.safetensors": "0" * 64}}, "written for other files"),
    ],
)
def test_a_manifest_that_tells_another_story_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    written = pack(write_adapter(tmp_path / "a"), tmp_path / "packed", manifest())
    path = tmp_path / "packed" / "manifest.json"
    path.chmod(0o644)
    path.write_bytes(written.model_copy(update=change).to_json())
    assert says in refusal(tmp_path / "packed")


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_a_manifest_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidAdapter):
        Manifest.parse(data)


@pytest.mark.parametrize(
    "change",
    [
        {"base_model": "/home/somebody/model"},
        {"base_model": "./model"},
        {"base_model": "~/model"},
        {"rank": "4"},
        {"files": {"adapter_config.json": "nothex"}},
        {"metrics": {"loss": "low"}},
        {"created_at": "2026-01-01T00:00:00"},
        {"version": 3},
        {"format": 2},
        {"lineage": {"run_id": "r", "dataset_digest": "d", "parent": "not a ref"}},
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused_by_the_fields_name(change: dict[str, Any]) -> None:
    text = json.dumps(manifest().model_dump(mode="json") | change)
    with pytest.raises(InvalidAdapter, match=f"wrong at '{next(iter(change))}"):
        Manifest.parse(text.encode())


def test_a_manifest_reads_as_it_was_written() -> None:
    written = manifest(metrics={"eval_loss": 0.25}, base_revision="sha256:00")
    assert Manifest.parse(written.to_json()) == written
    assert Manifest.parse(written.to_json()).to_json() == written.to_json()


def test_what_is_packed_names_no_local_path_and_means_the_same(tmp_path: Path, base: BaseShape) -> None:
    local = peft_config(base_model_name_or_path=str(tmp_path / "base"), target_modules=["v_proj", "q_proj"])
    pack(write_adapter(tmp_path / "a", config=local), tmp_path / "packed", manifest())
    assert all(str(tmp_path).encode() not in entry.read_bytes() for entry in (tmp_path / "packed").iterdir())
    found = inspect(tmp_path / "packed", base=base, base_model=BASE_MODEL)
    before = read_config(json.dumps(local).encode())
    assert (found.config.rank, found.config.alpha, found.config.rslora) == (before.rank, before.alpha, before.rslora)


def test_a_base_model_of_another_kind_is_measured_by_its_weights(tmp_path: Path) -> None:
    directory = write_base(tmp_path / "base", model_type="unheard-of")
    with pytest.raises(InvalidBase, match="holds no"):
        BaseShape.of(directory)
    weights: Tensors = {
        "transformer.h.0.mlp.fc.weight": ("BF16", (8, 4), b"\0" * 64),
        "transformer.norm.weight": ("F32", (4,), b"\0" * 16),
    }
    (directory / "model.safetensors").write_bytes(safetensors(weights))
    assert dict(BaseShape.of(directory).linear) == {"transformer.h.0.mlp.fc": (4, 8)}


def test_the_revision_knows_other_weights_and_forgets_where_a_copy_came_from(tmp_path: Path) -> None:
    def model(name: str, seed: int, **config: Any) -> Path:
        directory = write_base(tmp_path / name, **config)
        (directory / "model.safetensors").write_bytes(safetensors(lora_tensors(seed=seed)))
        return directory

    one = base_revision(model("one", 1))
    assert one.startswith("sha256:") and len(one) == 71
    assert base_revision(model("copy", 1, transformers_version="9", _name_or_path="elsewhere")) == one
    assert base_revision(model("other", 2)) != one
    assert base_revision(model("bigger", 1, hidden_size=65)) != one


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"num_hidden_layers": "2"}', '{"num_hidden_layers": 0}'])
def test_a_base_model_without_its_numbers_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidBase):
        BaseShape.of(tmp_path)
