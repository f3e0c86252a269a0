"""The commands that start vLLM and the shipped fake; what a person may want to change in them is a setting."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from gateway.settings import Settings


def vllm_command(settings: Settings, socket: Path) -> tuple[list[str], dict[str, str]]:
    """Stock vLLM with our plugin, on a Unix socket: its arguments, and the environment to add."""
    engine = settings.engine
    python = engine.python or sys.executable
    command = engine.command or [python, "-m", "vllm.entrypoints.openai.api_server"]
    model = str(settings.model_path.resolve()) if settings.model_path else settings.base_model
    arguments = [
        *("--model", model, "--served-model-name", settings.base_model, "--uds", str(socket)),
        *("--enable-lora", "--max-loras", str(engine.max_loras), "--max-cpu-loras", str(engine.max_cpu_loras)),
        *("--max-lora-rank", str(engine.max_lora_rank)),
        # The names of adapters are kept in the API server's memory: there may be one only.
        *("--api-server-count", "1"),
        # What a request leaves out must not depend on a file beside the weights: the recorded parameters are complete.
        *("--generation-config", "vllm"),
        # Prompts belong in no log.
        *("--no-enable-log-requests", "--disable-uvicorn-access-log", "--disable-fastapi-docs"),
    ]
    env = {
        # An allow-list over all of vLLM's plugin groups: nothing else is loaded.
        "VLLM_PLUGINS": "tuneloop",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
        "VLLM_SERVER_DEV_MODE": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if settings.model_path:
        env["HF_HUB_OFFLINE"] = "1"
    if engine.command is None and _is_cpu_build(python):
        cpu_arguments, cpu_env = _for_cpu()
        arguments, env = arguments + cpu_arguments, env | cpu_env
    # vLLM takes the last of two spellings, so what the operator wrote wins.
    return [*command, *arguments, *engine.args], env | engine.env


def _for_cpu() -> tuple[list[str], dict[str, str]]:
    """What vLLM's CPU build is better off with; numbers in docs/engine.md."""
    # Its blocks of 128 tokens never let two short prompts share a prefix.
    arguments = ["--dtype", "bfloat16", "--block-size", "32"]
    env = {"VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB; it would take a large share of the machine
    if len(os.sched_getaffinity(0)) <= 2:
        # Its own process for the worker, which spins for work beside EngineCore, costs two cores more than it gives:
        # the worker lives in EngineCore, on one thread.
        env |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"}
    return arguments, env


def _is_cpu_build(python: str) -> bool:
    """Whether the vLLM of this interpreter is the CPU build, which is a distribution of its own."""
    if python == sys.executable:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return bool(importlib.metadata.version("vllm-cpu"))
        return False
    asks = "import importlib.metadata as m; m.version('vllm-cpu')"
    try:
        return subprocess.run([python, "-c", asks], capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


def fake_command(settings: Settings, socket: Path) -> tuple[list[str], dict[str, str]]:
    """The shipped fake, on a Unix socket, with the same limits."""
    engine = settings.engine
    command = engine.command or [sys.executable, "-m", "gateway.engine.fake"]
    arguments = [
        *("--uds", str(socket), "--base-model", settings.base_model, "--max-loras", str(engine.max_loras)),
        *("--max-cpu-loras", str(engine.max_cpu_loras), "--max-lora-rank", str(engine.max_lora_rank)),
    ]
    return [*command, *arguments, *engine.args], dict(engine.env)
