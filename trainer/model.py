"""The base model with a LoRA on it, its loss, and its way to disk. It knows nothing of rows, runs or gateways."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import cached_file

from trainer.config import RunSettings, world
from trainer.errors import InvalidConfig, TrainingFailed
from trainer.precision import Format, halve_linear_layers
from trainer.settings.training import LoraSettings
from trainer.tokens import tokenizer_of


def _fp32(_config: Any, _device: str) -> Format:
    return "fp32"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A base model ready to train. `directory` holds its files; `autocast`: float32, its matrix products in bfloat16.

    `packed`: rows may be laid out in one sequence, if its attention heeds the mask. `start`: a PEFT directory that
    the LoRA goes on from.
    """

    model: Any
    tokenizer: Any
    directory: Path
    device: str
    autocast: bool
    packed: bool
    start: Path | None = None

    def computing(self) -> contextlib.AbstractContextManager[Any]:
        """Wrap every forward pass in this."""
        return torch.autocast(self.device, dtype=torch.bfloat16) if self.autocast else contextlib.nullcontext()

    @property
    def half(self) -> bool:
        """Whether matrix products are in bfloat16."""
        return self.autocast or self.model.dtype == torch.bfloat16


def load(settings: RunSettings, choose: Callable[[Any, str], Format] = _fp32) -> Loaded:
    """Load base model and tokenizer. A local directory is read without any network. Raises `InvalidConfig`.

    `choose` is asked, with the model's configuration and the device, for the number format if the settings leave it.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        mine = len(os.sched_getaffinity(0)) // world().local_size
        torch.set_num_threads(settings.training.threads or max(mine, 1))
    source = str(settings.model_path or settings.base_model)
    offline = settings.model_path is not None
    if offline and not (Path(source) / "config.json").is_file():
        raise InvalidConfig(f"model_path {source} holds no model", "name a directory with config.json and weights")
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=offline)
        wanted = settings.training.precision
        half = (choose(config, device) if wanted == "auto" else wanted) == "bf16"
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.bfloat16 if half and device == "cuda" else torch.float32,
            quantization_config=_quantization(settings.training.quantize, half=half),
            device_map={"": world().local_rank if device == "cuda" else device},
            local_files_only=offline,
        )
        directory = Path(source) if offline else Path(str(cached_file(source, "config.json"))).parent
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InvalidConfig(f"the base model cannot be loaded ({reason})", "check base_model and model_path") from error
    model.config.use_cache = False
    _keep_differentiable(model)
    autocast = half and device == "cpu"
    model.eval()
    # A sliding window would have to be cut into the mask of a laid-out batch, layer by layer: pad instead.
    packed = device == "cpu" and getattr(config, "sliding_window", None) is None
    return Loaded(model, tokenizer_of(settings), directory, device, autocast, packed)


def with_lora(loaded: Loaded, settings: LoraSettings) -> Any:
    """The model with a LoRA, fresh or going on from `loaded.start`, whose form it then has. Only that is trainable, in
    float32. Seed torch first. Raises `InvalidConfig`."""
    if loaded.autocast:
        halve_linear_layers(loaded.model)
    if loaded.start is not None:
        return PeftModel.from_pretrained(loaded.model, str(loaded.start), is_trainable=True)
    targets = _linear_layers(loaded.model) if settings.targets == "all-linear" else settings.targets
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.scale,
        use_rslora=settings.rslora,
        lora_dropout=settings.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(loaded.model, config)
    except ValueError as error:
        raise InvalidConfig(f"lora.targets do not fit this model ({str(error)[:200]})", "use all-linear") from error


def supervised_loss(model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """Σ weight · negative log-likelihood (nats) over the supervised tokens, and how many those are. `inputs` are as
    `trainer.tokens.Collate` makes them.

    The head is computed at the supervised positions only: with a vocabulary of tens of thousands it costs as much as
    the layers, and TRL off a GPU spends it on every position (FACTS §8: twice the tokens a second, equal losses).
    """
    labels, at = inputs["labels"], inputs["at"]
    passed = {key: value for key, value in inputs.items() if key not in ("at", "labels", "weights")}
    width = passed["input_ids"].shape[1]
    columns, which = (at % width).unique(return_inverse=True)
    logits = model(**passed, use_cache=False, logits_to_keep=columns).logits
    losses = torch.nn.functional.cross_entropy(logits[at // width, which].float(), labels, reduction="none")
    return (losses * inputs["weights"]).sum(), len(labels)


def save_adapter(model: Any, directory: Path) -> None:
    """Write PEFT's directory (weights, config, model card); what of it is published is adapters.package's choice."""
    model.save_pretrained(str(directory), save_embedding_layers=False)


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """A disk that is full, told as one: torch and safetensors have errors of their own for it.

    Raises `TrainingFailed`.
    """
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        if not isinstance(error, SafetensorError) and "inline_container" not in str(error):  # torch's archives
            raise
        reason = str(error).splitlines()[0][:200]
        remedy = "make room, and run the same command again; it continues"
        raise TrainingFailed(f"a file in {directory} cannot be written ({reason})", remedy) from error


def _quantization(wanted: str, *, half: bool) -> BitsAndBytesConfig | None:
    """How bitsandbytes holds the frozen matrices; the head and the embeddings stay as they are."""
    if wanted == "none":
        return None
    if wanted == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if half else torch.float32,
    )


def _keep_differentiable(model: Any) -> None:
    """Forbid bitsandbytes to repack 4-bit weights for inference: training after it would get wrong gradients.

    On CPUs with AVX512-BF16 the first pass in eval mode does so, and the kernel for that layout has no backward pass
    (bitsandbytes 0.50; torch only warns). A held-out loss before training is such a pass.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _linear_layers(model: Any) -> list[str]:
    """The literal names of all linear layers but the head. PEFT's own "all-linear" saves whole paths for few layers."""
    head = model.get_output_embeddings()
    named = model.named_modules()
    return sorted(
        {name.rpartition(".")[2] for name, part in named if isinstance(part, torch.nn.Linear) and part is not head}
    )
