"""A configuration that asks the engine for more than a plain LoRA is refused by the key, with what to change."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from adapters.weights import inspect
from tests.adapters.refusal import refusal
from tests.adapters.sample import peft_config, write_adapter


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
