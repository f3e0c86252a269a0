"""A base model that trains in seconds: a random Llama of 2 layers, 64 wide, with a byte-level ChatML tokenizer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainer import config
from trainer.config import RunSettings

NAME = "demo/tiny"
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_model(directory: Path) -> Path:
    """Write the model; returns `directory`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: i for i, text in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|endoftext|>", "<|im_start|>"],
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(str(directory))
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(shape).save_pretrained(str(directory))
    return directory


def write_rows(path: Path, count: int = 24) -> Path:
    """Prompts of different lengths with a short answer each."""
    lines = [{"prompt": f"count {'again ' * (n % 5)}{n}", "completion": f"it is {n % 7}"} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def settings(directory: Path, model: Path, **changed: Any) -> RunSettings:
    """A run in `directory`/run on rows written there; `changed` are dotted keys with __ for the dot."""
    raw = {
        "base_model": NAME,
        "model_path": str(model),
        "run_dir": str(directory / "run"),
        "data.train": str(write_rows(directory / "rows.jsonl")),
        "lora.rank": 8,
        "training.batch_size": 4,
        "training.max_steps": 6,
        "training.precision": "fp32",
        "training.threads": 1,
    }
    raw |= {key.replace("__", "."): value for key, value in changed.items()}
    return config.load(None, raw.items(), environ={})


def command(wanted: RunSettings, *more: str) -> list[str]:
    """The command line that runs `wanted` in a process of its own."""
    words = [sys.executable, "-m", "trainer", "run", *more]
    for key in ("base_model", "model_path", "run_dir"):
        words += ["--set", f"{key}={getattr(wanted, key)}"]
    words += ["--set", f"data.train={wanted.data.train[0]}", "--set", f"lora.rank={wanted.lora.rank}"]
    for key in ("batch_size", "max_steps", "precision", "threads", "save_seconds"):
        words += ["--set", f"training.{key}={getattr(wanted.training, key)}"]
    return words


def shell(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `trainer` as a person would, without a gateway unless `variables` name one."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_")}
    return subprocess.run(
        [sys.executable, "-m", "trainer", *words],
        capture_output=True,
        text=True,
        env={**clean, **variables},
        timeout=250,
    )
