"""One engine as a child process: started, ready once it has generated a token, restarted when it dies, ended whole.

It knows nothing of HTTP, adapters or requests: whether the engine is ready is asked of a callable that is handed in.
The commands for vLLM and for the shipped fake are below; what a person may want to change in them is a setting.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gateway.engine import session
from gateway.settings import Settings

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
HEALTHY_SECONDS = 60.0
"""After this long without dying, the next death is a first one again."""
LOG_BYTES, OLD_LOGS = 16 * 1024 * 1024, 3
"""A log beyond this size is put aside when the engine starts; this many old ones are kept."""
ORPHAN_PATIENCE = 1.0
"""Seconds that an engine's grandchildren get to follow it by themselves."""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """What became of the engine: `kind` is "starting", "ready", "died", "restarting" or "stopped"."""

    kind: str
    sentence: str


def log_event(event: EngineEvent) -> None:
    """The default listener: one log line an event."""
    level = logging.ERROR if event.kind == "died" else logging.INFO
    logging.getLogger("gateway.engine").log(level, event.sentence, extra={"event": event.kind})


class EngineProcess:
    """A supervised engine on a Unix socket, in a session of its own. `run()` it as a task and `stop()` it.

    `command` and `env` (added to ours, less our own settings and secrets) start it; `ready` returns once a token was
    generated and raises anything before; `start_seconds` is how long that may take; `tell` hears what happens.
    The kernel kills the engine when the thread that runs this loop dies, so run it in the main thread.
    """

    def __init__(
        self,
        command: list[str],
        *,
        env: dict[str, str],
        socket: Path,
        log: Path,
        start_seconds: float,
        ready: Callable[[], Awaitable[Any]],
        tell: Callable[[EngineEvent], None] = log_event,
    ) -> None:
        self._command = command
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")} | env
        self._socket = socket
        self._log = log
        self._start_seconds = start_seconds
        self._ready = ready
        self._tell = tell
        self._record = session.Record(socket.with_name(socket.name + ".session"))
        self._child: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self.is_ready = False

    @property
    def pid(self) -> int | None:
        """The engine's first process, whose number is also its session's; None while there is none."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    def last_line(self) -> str:
        """The last line of the engine's log, for a display of what a start is waiting for."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
                lines = log.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    async def run(self) -> None:
        """Keep the engine alive until `stop()` or cancellation; either way nothing of it is left afterwards."""
        pause = 0.0
        self._ended.clear()
        try:
            while not self._stopping.is_set():
                healthy = await self._live()
                if self._stopping.is_set():
                    break
                pause = next_pause(pause, healthy)
                self._tell(EngineEvent("restarting", f"the engine is restarted in {pause:.0f} s"))
                # Not wait_for: on 3.11 it loses a cancellation that coincides with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()
            self._tell(EngineEvent("stopped", "the engine is stopped"))
        finally:
            self._ended.set()

    async def stop(self, seconds: float = 10) -> None:
        """Ask the engine to end, kill it with all its children after `seconds`, and wait until `run()` is through."""
        self._stopping.set()
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), seconds)
            if self._child.returncode is None:
                await session.end(self._child.pid, patience=0)
        await self._ended.wait()

    async def _live(self) -> float:
        """One life of the engine, from start to death; returns for how many seconds it was ready."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if reaped := await self._record.reap():
            self._tell(EngineEvent("starting", f"ended {reaped} processes that an earlier engine left behind"))
        self._clear_socket()
        self._tell(EngineEvent("starting", "the engine is starting"))
        self._child = child = await self._spawn()
        healthy = patience = 0.0
        try:
            self._record.write(child.pid)
            failure = await self._until_ready(child)
            if failure is None:
                self.is_ready = True
                became_ready = loop.time()
                self._tell(EngineEvent("ready", f"the engine is ready after {became_ready - began:.1f} s"))
                await child.wait()
                healthy, patience = loop.time() - became_ready, ORPHAN_PATIENCE
        finally:
            self.is_ready = False
            await session.end(child.pid, patience=patience)
            await child.wait()
            self._record.clear()
        if not self._stopping.is_set():
            sentence = failure or f"the engine died after {loop.time() - began:.1f} s ({_status(child.returncode)})"
            self._tell(EngineEvent("died", f"{sentence}; see its log"))
        return healthy

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self._open_log() as log:
            return await asyncio.create_subprocess_exec(
                *session.leashed(self._command),
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _until_ready(self, child: asyncio.subprocess.Process) -> str | None:
        """Ask until the engine has generated a token; otherwise say why it never did."""
        said: Exception | None = None
        try:
            async with asyncio.timeout(self._start_seconds):
                while child.returncode is None:
                    if self._socket.exists():
                        try:
                            await self._ready()
                        except Exception as error:  # whatever it says, it says "not yet"
                            said = error
                        else:
                            return None
                    await asyncio.sleep(0.1)
        except TimeoutError:
            why = f" (the last answer was {type(said).__name__})" if said else ""
            late = f"the engine generated no token within {self._start_seconds:.0f} s{why}"
            return f"{late}: raise GATEWAY_ENGINE__START_SECONDS if it only needs longer"
        return f"the engine died while starting ({_status(child.returncode)})"

    def _clear_socket(self) -> None:
        """vLLM binds without unlinking: the socket of an earlier life would fail the start."""
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)

    def _open_log(self) -> BinaryIO:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            for number in range(OLD_LOGS, 0, -1):
                older = self._log.with_name(f"{self._log.name}.{number}")
                newer = self._log.with_name(f"{self._log.name}.{number - 1}") if number > 1 else self._log
                if newer.exists():
                    newer.replace(older)
        return self._log.open("ab")


def next_pause(previous: float, healthy: float) -> float:
    """Seconds to wait before the next start: doubling from 1 to 30, and 1 again after a healthy minute."""
    if previous == 0 or healthy >= HEALTHY_SECONDS:
        return FIRST_PAUSE
    return min(previous * 2, LONGEST_PAUSE)


def _status(returncode: int | None) -> str:
    return f"killed by signal {-returncode}" if returncode is not None and returncode < 0 else f"status {returncode}"


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
