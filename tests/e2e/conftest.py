"""One real engine for all end-to-end tests: stock vLLM with our plugin on the real small model, under our supervisor.

It takes most of a minute to start, so it is shared; a test may kill it, the next one that asks gets it back. A test
finds no adapter on it. TUNELOOP_MODEL names the model's directory (default: where `make model` puts it).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.engine import session
from gateway.settings import EngineSettings, Settings
from loadtests.engine.random_adapter import write_adapter

ROOT = Path(__file__).parents[2]
DEFAULT_MODEL = ROOT / ".tuneloop" / "models" / "SmolLM2-135M-Instruct"
START_SECONDS = 500
MAX_RANK = 32
MAX_LORAS = 3
MAX_CPU_LORAS = 4


class RealEngine:
    """The shared engine: where it is, who runs it, and how to kill it."""

    def __init__(self, model: Path) -> None:
        self.room = Path(tempfile.mkdtemp(prefix="tl-e2e-"))
        self.socket, self.log = self.room / "engine.sock", self.room / "engine.log"
        self.url = f"unix:{self.socket}"
        limits = EngineSettings(
            max_loras=MAX_LORAS,
            max_cpu_loras=MAX_CPU_LORAS,
            max_lora_rank=MAX_RANK,
            start_seconds=START_SECONDS,
            args=["--max-model-len", "1024", "--max-num-seqs", "32"],
        )
        self.settings = Settings(home=self.room, model_path=model, engine=limits)
        self.base_model = self.settings.base_model
        self.model = model
        self.events: list[dict[str, Any]] = []
        self._supervisor: subprocess.Popen[str] | None = None

    @property
    def supervised(self) -> bool:
        return self._supervisor is not None and self._supervisor.poll() is None

    @property
    def pid(self) -> int:
        """The API server's process, which leads the engine's session."""
        return int(next(event["pid"] for event in reversed(self.events) if event["kind"] == "ready"))

    def start(self) -> None:
        """Start the supervisor and wait until the engine has generated a token."""
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.supervise", str(self.socket), str(self.log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **self.settings.environment()},
        )
        self.hears("ready")

    def hears(self, kind: str) -> dict[str, Any]:
        """Wait for the supervisor's next event of this kind."""
        assert self._supervisor is not None
        assert self._supervisor.stdout is not None
        for line in self._supervisor.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["kind"] == kind:
                return self.events[-1]
            assert self.events[-1]["kind"] != "died" or kind in ("ready", "restarting"), self.tail()
        raise AssertionError(f"the supervisor has died:\n{self.tail()}")

    def kill_api_server(self) -> list[int]:
        """kill -9 of the API server alone; returns the processes that its session had."""
        pids = [member.pid for member in session.members(self.pid)]
        os.kill(self.pid, signal.SIGKILL)
        return pids

    def kill_supervisor(self) -> list[int]:
        """kill -9 of the supervisor; returns the processes that the engine's session had."""
        assert self._supervisor is not None
        pids = [member.pid for member in session.members(self.pid)]
        self._supervisor.kill()
        self._supervisor.wait()
        return pids

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:]) if self.log.exists() else ""

    def client(self) -> httpx.Client:
        """A plain HTTP client on the engine's socket."""
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://engine", timeout=120)

    def status(self) -> dict[str, Any]:
        with self.client() as client:
            reply: dict[str, Any] = client.get("/tuneloop/engine").raise_for_status().json()
        return reply

    def clear(self) -> None:
        """Evict every adapter; those in use get a moment."""
        with self.client() as client:
            for adapter in client.get("/tuneloop/engine").json()["adapters"]:
                for _ in range(100):
                    if client.post("/tuneloop/adapters/evict", json={"name": adapter["name"]}).status_code != 409:
                        break
                    time.sleep(0.1)

    def close(self) -> None:
        if self.supervised:
            assert self._supervisor is not None
            assert self._supervisor.stdin is not None
            self._supervisor.stdin.close()
            self._supervisor.wait(30)
        shutil.rmtree(self.room, ignore_errors=True)


@pytest.fixture(scope="session")
def model_directory() -> Path:
    """The real small model on disk; made by `make model`."""
    model = Path(os.environ.get("TUNELOOP_MODEL", DEFAULT_MODEL))
    assert (model / ".ready").exists(), "no model: run `make model`, or set TUNELOOP_MODEL to its directory"
    return model


@pytest.fixture(scope="session")
def shared_engine(model_directory: Path) -> Iterator[RealEngine]:
    engine = RealEngine(model_directory)
    yield engine
    engine.close()


@pytest.fixture
def real_engine(shared_engine: RealEngine) -> Iterator[RealEngine]:
    """The shared engine, running and without adapters."""
    if not shared_engine.supervised:
        shared_engine.start()
    shared_engine.clear()
    yield shared_engine


@pytest.fixture(scope="session")
def adapters(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five random adapters with answers of their own."""
    room = tmp_path_factory.mktemp("adapters")
    return [write_adapter(room / str(seed), model_directory, seed=seed) for seed in range(5)]
