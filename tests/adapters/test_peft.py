"""A published version is a PEFT directory: PEFT and vLLM's own loader take it as it is, and it means the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.store import AdapterStore, Opened
from adapters.weights import BaseShape, base_revision, inspect
from tests.adapters.sample import manifest

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_base(directory: Path) -> Any:
    """A random Llama of 2 layers, 64 wide, saved as a model directory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(directory)
    return LlamaForCausalLM.from_pretrained(directory).eval()


def train(base: Any, directory: Path, **options: Any) -> Any:
    """A LoRA whose lora_B is not zero any more, saved by PEFT. Returns its logits on a fixed prompt."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    model = get_peft_model(base, config).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.05)
        logits = model(input_ids=torch.arange(12)[None]).logits
    model.save_pretrained(directory)
    return logits


def published(tmp_path: Path, **options: Any) -> tuple[Opened, Any]:
    logits = train(save_base(tmp_path / "base"), tmp_path / "run", **options)
    described = manifest(rank=4, alpha=6.0, targets=ALL, base_revision=base_revision(tmp_path / "base"))
    store = AdapterStore(str(tmp_path / "store"))
    shape = BaseShape.of(tmp_path / "base")
    made = store.publish(tmp_path / "run", tenant="acme", name="support", manifest=described, base=shape)
    return store.open(made.ref), logits


@pytest.mark.training
@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True, "init_lora_weights": "gaussian"}], ids=["plain", "rslora"]
)
def test_peft_loads_a_published_version_with_the_same_answers(tmp_path: Path, options: dict[str, Any]) -> None:
    import torch
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    opened, expected = published(tmp_path, **options)
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base").eval()
    prompt = torch.arange(12)[None]
    with torch.no_grad():
        plain = base(input_ids=prompt).logits
        tuned = PeftModel.from_pretrained(base, opened.path).eval()(input_ids=prompt).logits
    assert torch.equal(tuned, expected)
    assert not torch.allclose(plain, expected, atol=1e-3)


@pytest.mark.training
def test_the_shape_from_the_config_is_that_of_the_real_model(tmp_path: Path) -> None:
    model = save_base(tmp_path)
    shape = BaseShape.of(tmp_path)
    real = {name: (module.in_features, module.out_features) for name, module in model.named_modules() if "proj" in name}
    assert dict(shape.linear) == real and shape.layers == 2


@pytest.mark.engine
@pytest.mark.parametrize(("rslora", "scale"), [(False, 6 / 4), (True, 6 / 4**0.5)])
def test_vllm_loads_a_published_version_and_scales_it_as_it_was_trained(
    tmp_path: Path, rslora: bool, scale: float
) -> None:
    from vllm.config.lora import LoRAConfig
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    opened, _ = published(tmp_path, use_rslora=rslora)
    helper = PEFTHelper.from_local_dir(str(opened.path), max_position_embeddings=None)
    helper.validate_legal(LoRAConfig(max_lora_rank=8))
    assert helper.vllm_lora_scaling_factor == pytest.approx(scale)
    loaded = LoRAModel.from_local_checkpoint(str(opened.path), set(ALL), helper, lora_model_id=1, device="cpu")
    assert len(loaded.loras) == 2 * len(ALL)
    assert inspect(opened.path).parameters == sum(
        lora.lora_a.numel() + lora.lora_b.numel() for lora in loaded.loras.values()
    )
