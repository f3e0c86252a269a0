"""Which number format a training step is faster in on this machine: measured, since no flag of a processor tells.

The probe is one layer of the model's own architecture, with random weights and quantised as the base will be, forward
and backward over a batch's worth of tokens, in turns. It knows no weights and no rows.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import AutoModel

Format = Literal["fp32", "bf16"]
_WORK = 256 * 1024
"""Tokens times width of the probe, so that a wide model takes no longer."""
_SECONDS = 1.5
_MARGIN = 0.9
"""bfloat16 must take less than this share of float32's time: float32 is the more exact."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of the layer's forward and backward pass in each format, the fastest of several; and the choice."""

    fp32_ms: float
    bf16_ms: float

    @property
    def choice(self) -> Format:
        return "bf16" if self.bf16_ms < _MARGIN * self.fp32_ms else "fp32"


def measure(config: Any, device: str, quantize: Literal["none", "nf4", "int8"] = "none") -> Measured:
    """Time both formats for a model of `config` in about two seconds. Leaves torch's random state as it was."""
    with torch.random.fork_rng():
        layers = {"fp32": _layer(config, device, quantize), "bf16": _layer(config, device, quantize, half=True)}
        width = config.get_text_config().hidden_size
        tokens = max(16, min(256, _WORK // width))
        inputs = torch.randn(1, tokens, width, device=device, requires_grad=True)
        fastest = dict.fromkeys(layers, float("inf"))
        for layer, half in ((layers["fp32"], False), (layers["bf16"], True)):
            _pass(layer, inputs, half=half)  # the first pass allocates
        until = time.monotonic() + _SECONDS
        for _ in range(10):
            for name, layer in layers.items():
                fastest[name] = min(fastest[name], _pass(layer, inputs, half=name == "bf16"))
            if time.monotonic() > until:
                break
    return Measured(*(round(1000 * fastest[name], 2) for name in ("fp32", "bf16")))


def halve_linear_layers(model: Any) -> None:
    """Hold frozen matrices in bfloat16, else autocast copies them on each pass; norms and embeddings stay exact."""
    head = model.get_output_embeddings()
    for module in model.modules():
        if type(module) is torch.nn.Linear and module is not head:
            module.to(torch.bfloat16)


def _layer(config: Any, device: str, quantize: str, *, half: bool = False) -> Any:
    small = copy.deepcopy(config)
    text = small.get_text_config()
    text.num_hidden_layers, text.vocab_size, text.pad_token_id = 1, 8, None
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:1]
    model = AutoModel.from_config(small, dtype=torch.float32)
    for parameter in model.parameters():
        parameter.requires_grad = False
    if quantize != "none":
        _quantize(model, quantize, torch.bfloat16 if half else torch.float32)
    elif half:
        halve_linear_layers(model)
    return model.to(device).train()


def _quantize(model: Any, quantize: str, compute: torch.dtype) -> None:
    import bitsandbytes as bnb

    for module in list(model.modules()):
        for name, part in module.named_children():
            if type(part) is not torch.nn.Linear:
                continue
            shape, bias = (part.in_features, part.out_features), part.bias is not None
            new = (
                bnb.nn.Linear4bit(*shape, bias=bias, compute_dtype=compute, quant_type="nf4")
                if quantize == "nf4"
                else bnb.nn.Linear8bitLt(*shape, bias=bias, has_fp16_weights=False)
            )
            new.requires_grad_(False)
            setattr(module, name, new)


def _pass(model: Any, inputs: torch.Tensor, *, half: bool) -> float:
    began = time.perf_counter()
    with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=half):
        out = model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    out.float().sum().backward()
    if inputs.device.type == "cuda":
        torch.cuda.synchronize()
    inputs.grad = None
    return time.perf_counter() - began
