"""The peers: which package in which version, and how it is started in front of one upstream.

Each lives in a virtual environment of its own under a cache directory, made the first time it is asked for.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.crew import Say
from loadtests.installation import BASE_MODEL, LoadTestFailed

MASTER_KEY = "sk-loadtests-0123456789abcdef0123456789abcdef"
"""LiteLLM does not start without a long one; it guards nothing."""

LITELLM_CONFIG = f"""\
model_list:
  - model_name: {BASE_MODEL}
    litellm_params: {{{{model: openai/{BASE_MODEL}, api_base: "{{upstream}}/v1", api_key: none}}}}
general_settings: {{{{master_key: {MASTER_KEY}}}}}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` and `files` (name → text) may hold {bin}, {port}, {metrics}, {upstream} and {home}."""

    name: str
    version: str
    requirement: str
    command: Sequence[str]
    key: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    start_seconds: float = 60


_ROUTER = ("--worker-urls", "{upstream}", "--host", "127.0.0.1", "--port", "{port}", "--prometheus-port", "{metrics}")

PEERS = (
    Peer(
        "vllm-router",
        "0.1.17",
        "vllm-router",
        ("{bin}/vllm-router", *_ROUTER, "--policy", "round_robin", "--log-level", "warning"),
    ),
    Peer(
        "smg",
        "1.13.0",
        "smg",
        ("{bin}/smg", "launch", *_ROUTER, "--policy", "round_robin", "--log-level", "warn"),
    ),
    Peer(
        "litellm",
        "1.106.2",
        "litellm[proxy]",
        ("{bin}/litellm", "--config", "{home}/config.yaml", "--host", "127.0.0.1", "--port", "{port}"),
        key=MASTER_KEY,
        files={"config.yaml": LITELLM_CONFIG},
        start_seconds=120,
    ),
)


def environment(peer: Peer, cache: Path, *, say: Say) -> Path:
    """The `bin` directory of the peer's virtual environment, made and filled if it is not there yet (minutes).

    Raises `LoadTestFailed` with the end of pip's words.
    """
    directory = cache / f"{peer.name}-{peer.version}"
    ready = directory / ".ready"
    if not ready.exists():
        say(f"{peer.name}: installing {peer.requirement} {peer.version} into {directory} (once, a minute or two)")
        directory.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        base, _, extra = peer.requirement.partition("[")
        wanted = f"{base}{'[' + extra if extra else ''}=={peer.version}"
        pip = [
            str(directory / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            wanted,
        ]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LoadTestFailed(f"{peer.name} could not be installed: {done.stderr[-800:]}")
        ready.touch()
    return directory / "bin"
