"""One engine as a child process: started, ready once it has generated a token, restarted when it dies, ended whole.

It knows nothing of HTTP, adapters or requests: whether the engine is ready is asked of a callable that is handed in.
Which command that is, is `command.py`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gateway.engine import session

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
HEALTHY_SECONDS = 60.0
"""After this long without dying, the next death is a first one again."""
LOG_BYTES, OLD_LOGS = 16 * 1024 * 1024, 3
"""A log beyond this size is put aside when the engine starts; this many old ones are kept."""
LOOKS = 6
"""How often a silence that is too long would have been looked at before it is called that."""
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
    generated and raises anything before; `start_seconds` is how long that may take. Afterwards `lives` is asked now and
    then: it returns when the engine has generated something since, and raises when it has not. An engine that did not
    live for `silence_seconds` is ended as if it had died. `tell` hears what happens.
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
        lives: Callable[[], Awaitable[Any]],
        silence_seconds: float,
        tell: Callable[[EngineEvent], None] = log_event,
    ) -> None:
        self._command = command
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")} | env
        self._socket = socket
        self._log = log
        self._start_seconds = start_seconds
        self._ready = ready
        self._lives, self._silence_seconds = lives, silence_seconds
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
                last = await self._until_dead_or_silent(child)
                healthy, patience = last - became_ready, ORPHAN_PATIENCE if child.returncode is not None else 0.0
                if child.returncode is None:
                    failure = f"the engine gave no token for {loop.time() - last:.0f} s, and was ended"
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

    async def _until_dead_or_silent(self, child: asyncio.subprocess.Process) -> float:
        """Returns when it last lived, in the loop's seconds. A hung engine answers /health and accepts connections."""
        loop = asyncio.get_running_loop()
        last, pace = loop.time(), self._silence_seconds / LOOKS
        while loop.time() - last < self._silence_seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pace):
                    await child.wait()
            if child.returncode is not None:
                return loop.time()
            with contextlib.suppress(Exception):  # whatever it is, it is no token
                async with asyncio.timeout(pace):
                    await self._lives()
                    last = loop.time()
        return last

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
