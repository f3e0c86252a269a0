"""The parent of everything `gateway serve` starts: database, engine, listening socket, the workers' ledger, workers.

It serves no request itself. Because the engine and the database belong to this process and not to a worker, a worker
can die without a weight being reloaded or a row being lost. What dies is started again, with back-off; when this
process dies, its children go with it, and the embedded database stays up for the next start to find.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from gateway.engine.client import HttpEngine
from gateway.engine.command import fake_command, vllm_command
from gateway.engine.process import EngineProcess
from gateway.errors import GatewayError, Unavailable
from gateway.serving.ledger import Ledger
from gateway.settings import EngineKind, Settings
from gateway.store import embedded
from gateway.store.database import unavailable_when_away
from gateway.store.migrate import migrate
from gateway.telemetry import configure_logging

log = logging.getLogger("gateway.supervisor")

BACKLOG = 2048
UNSENT = 128 * 1024
"""Bytes that the kernel takes of an answer before its client reads: unbounded, it held 2.8 MB for each reader that had
stopped."""
RESTART_SECONDS = (0.2, 10.0)
"""First and longest pause before a dead worker is started again."""


DATABASE_SECONDS = 2.0
"""Between two looks at the embedded PostgreSQL."""


class StartError(Exception):
    """`gateway serve` cannot start; the message says what to do."""


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status."""
    configure_logging()
    try:
        with _only_one(settings.home):
            asyncio.run(_Supervisor(settings).run())
    except (StartError, GatewayError) as error:
        print(f"gateway serve: {error}", file=sys.stderr)  # noqa: T201 — the command line's own word to its user
        return 1
    return 0


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the home's lock: two supervisors on one embedded database would stop each other's children."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"another gateway runs in {home}: stop it, or give this one --home DIR") from None
        yield


class _Supervisor:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        settings = self.settings
        settings.run_dir.mkdir(mode=0o700, exist_ok=True)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        listener = _listen(settings)
        database = (
            None if settings.database_url else await asyncio.to_thread(embedded.start, settings.home / "postgres")
        )
        try:
            database_url = database.url if database else settings.database_url
            assert database_url is not None  # one of the two
            with unavailable_when_away():
                await asyncio.to_thread(migrate, database_url)
            engine, engine_url = _engine(settings)
            resolved = settings.model_copy(
                update={
                    "port": listener.getsockname()[1],
                    "database_url": database_url,
                    "admin_key": settings.admin_key or _admin_key(settings.home),
                    "engine": settings.engine.model_copy(update={"url": engine_url}),
                }
            )
            await self._run_children(resolved, listener, engine, database)
        finally:
            listener.close()
            if database is not None:
                await asyncio.to_thread(database.stop)

    async def _run_children(
        self,
        settings: Settings,
        listener: socket.socket,
        engine: EngineProcess | None,
        database: embedded.Embedded | None,
    ) -> None:
        host, port = listener.getsockname()[:2]
        log.info("listening", extra={"url": f"http://{host}:{port}", "workers": settings.workers})
        ledger = Ledger.create(settings.workers)
        async with asyncio.TaskGroup() as group:
            children = [
                group.create_task(_keep_worker(settings, listener, ledger, index)) for index in range(settings.workers)
            ]
            running = group.create_task(engine.run()) if engine else None
            watching = group.create_task(_keep_database(database, settings.home / "postgres")) if database else None
            await self.stopping.wait()
            log.info("stopping", extra={"drain_seconds": settings.drain_seconds})
            # The engine goes last: the streams that the workers drain are still being generated.
            for child in children:
                child.cancel()
            await asyncio.wait(children)
            if engine and running:
                await engine.stop()
                running.cancel()
            if watching:
                watching.cancel()


async def _keep_database(database: embedded.Embedded, directory: Path) -> None:
    """Start the embedded server again when it has died; workers reconnect by themselves."""
    while True:
        await asyncio.sleep(DATABASE_SECONDS)
        if not await asyncio.to_thread(database.alive):
            log.error("PostgreSQL died: it is started again")
            with contextlib.suppress(Unavailable):  # its own log says why; we go on trying
                await asyncio.to_thread(embedded.start, directory)


async def _keep_worker(settings: Settings, listener: socket.socket, ledger: Ledger, index: int) -> None:
    """Keep the worker `index` alive until cancelled; then let it drain, within its deadline."""
    pause, longest = RESTART_SECONDS
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        # Of several workers each has a socket of its own: on a common one whoever is awake takes most connections (32
        # fell 30 to 2), and keeps them. A worker's socket goes with it, so nobody waits in a dead one's queue.
        own = _bind(*listener.getsockname()[:2], shared=True) if settings.workers > 1 else listener
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "gateway.worker", str(own.fileno()), str(ledger.fd), str(index)),
            pass_fds=[own.fileno(), ledger.fd],
            env=settings.environment(),
        )
        if own is not listener:
            own.close()
        try:
            status = await worker.wait()
        except asyncio.CancelledError:
            await _drain(worker, settings.drain_seconds)
            raise
        ledger.clear(index)  # now, and not when the next one starts: what it had under way counts against its tenants
        pause = RESTART_SECONDS[0] if loop.time() - started > 60 else min(pause * 2, longest)
        log.error("worker died", extra={"pid": worker.pid, "status": status, "restart_in_s": pause})
        await asyncio.sleep(pause)


async def _drain(worker: asyncio.subprocess.Process, seconds: float) -> None:
    """SIGTERM, wait for the open streams, and SIGKILL what does not end."""
    if worker.returncode is None:
        worker.terminate()
    try:
        await asyncio.wait_for(worker.wait(), seconds + 5)
    except TimeoutError:
        log.error("worker outlived its deadline", extra={"pid": worker.pid})
        worker.kill()
        await worker.wait()


def _engine(settings: Settings) -> tuple[EngineProcess | None, str]:
    """The engine child for this kind of engine (none for `url`), and the address workers reach it at."""
    kind = settings.engine.kind
    if kind is EngineKind.URL:
        if settings.engine.url is None:
            raise StartError("--engine url needs --engine-url, such as http://127.0.0.1:8000 or unix:/run/vllm.sock")
        return None, settings.engine.url
    address = settings.run_dir / "engine.sock"
    url = f"unix:{address}"
    command, env = (vllm_command if kind is EngineKind.VLLM else fake_command)(settings, address)

    pulse = Pulse(url, settings)
    process = EngineProcess(
        command,
        env=env,
        socket=address,
        log=settings.home / "logs" / "engine.log",
        start_seconds=settings.engine.start_seconds,
        ready=pulse.probe,
        lives=pulse.feel,
        silence_seconds=settings.engine.silence_seconds,
    )
    return process, url


class Pulse:
    """Whether the engine generates, asked on a connection of its own each time: the last one may hang."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._connect = partial(HttpEngine, url, base_model=settings.base_model, timeouts=settings.timeouts)
        self._base_model = settings.base_model
        self._generated = 0.0

    async def probe(self) -> None:
        """Generate a token. Raises when it cannot."""
        async with aclosing(self._connect()) as engine:
            await engine.probe(self._base_model)

    async def feel(self) -> None:
        """Return when the engine has generated since the last time, for anybody; if it was idle, for us.

        Its count first: behind a long queue our own token may take longer than a live engine's silence.
        """
        async with aclosing(self._connect()) as engine:
            before, self._generated = self._generated, await engine.generated()
        if self._generated == before:
            await self.probe()


def _listen(settings: Settings) -> socket.socket:
    """The address's socket. With several workers it only holds the address for theirs, which listen when ready."""
    listener = _bind(settings.host, settings.port, shared=settings.workers > 1)
    if settings.workers == 1:
        listener.listen(BACKLOG)
    return listener


def _bind(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port} ({error.strerror}): choose another --port") from error
    return listener


def _admin_key(home: Path) -> SecretStr:
    """The generated admin key: made once, readable by this user only."""
    file = home / "admin.key"
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write("tl-admin-" + secrets.token_urlsafe(32) + "\n")
    return SecretStr(file.read_text().strip())
