"""What is packed says the truth about itself and nothing about the machine; the base model is known by its numbers."""

from __future__ import annotations

import json
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
from tests.adapters.refusal import refusal
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


@pytest.fixture
def base(tmp_path: Path) -> BaseShape:
    return BaseShape.of(write_base(tmp_path / "base"))


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


def test_packing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    once = pack(write_adapter(tmp_path / "a"), tmp_path / "once", manifest())
    pack(tmp_path / "once", tmp_path / "twice", once)
    for entry in (tmp_path / "once").iterdir():
        assert (tmp_path / "twice" / entry.name).read_bytes() == entry.read_bytes()


def test_only_the_files_that_matter_are_packed(tmp_path: Path) -> None:
    (write_adapter(tmp_path / "a") / "training_args.bin").write_bytes(b"a pickle")
    pack(tmp_path / "a", tmp_path / "packed", manifest())
    assert not (tmp_path / "packed" / "training_args.bin").exists()


def test_a_packed_manifest_does_not_cover_for_another_base_model(tmp_path: Path) -> None:
    """An upload's configuration is written anew, so what it said before must have been the same."""
    packed = pack(write_adapter(tmp_path / "a"), tmp_path / "packed", manifest())
    config = peft_config(base_model_name_or_path="org/other")
    with pytest.raises(InvalidAdapter, match="written for other files"):
        pack(write_adapter(tmp_path / "b", config=config), tmp_path / "again", packed)


def test_a_file_over_the_limit_is_not_even_copied(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapter, match="too large"):
        pack(write_adapter(tmp_path / "a"), tmp_path / "packed", manifest(), limits=Limits(max_bytes=5000))
    assert (tmp_path / "packed" / "adapter_model.safetensors").stat().st_size == 0
