"""The engine's supervisor, on real processes: what starts, what dies, what must not survive."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from gateway.engine import session
from gateway.engine.client import HttpEngine
from gateway.engine.command import fake_command
from gateway.engine.process import EngineEvent, EngineProcess, next_pause
from gateway.settings import EngineSettings, Settings

HERE = Path(__file__).parent
TINY = HERE / "tiny_engine.py"


# The supervisor runs on asyncio's own loop; uvloop is the workers'.
pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_factories=["asyncio"])]


@pytest.fixture
def room(sockets: Path) -> Path:
    return sockets


class Watched:
    """A tiny engine under supervision, and what its supervisor told."""

    def __init__(
        self,
        room: Path,
        *options: str,
        start_seconds: float = 20,
        silence_seconds: float = 60,
        command: list[str] | None = None,
    ) -> None:
        self.socket, self.log = room / "e.sock", room / "logs" / "engine.log"
        self.events: list[EngineEvent] = []
        self._changed = asyncio.Event()
        self.engine = EngineProcess(
            command or [sys.executable, str(TINY), str(self.socket), *options],
            env={},
            socket=self.socket,
            log=self.log,
            start_seconds=start_seconds,
            ready=self.answers,
            lives=self.answers,
            silence_seconds=silence_seconds,
            tell=self._tell,
        )

    def _tell(self, event: EngineEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def answers(self) -> None:
        _, writer = await asyncio.open_unix_connection(self.socket)
        writer.close()

    async def hears(self, kind: str, times: int = 1) -> EngineEvent:
        async with asyncio.timeout(30):
            while [event.kind for event in self.events].count(kind) < times:
                self._changed.clear()
                await self._changed.wait()
        return [event for event in self.events if event.kind == kind][times - 1]

    def children(self) -> list[int]:
        """The numbers of the children that the tiny engine had in its lives."""
        return [int(line.split()[1]) for line in self.log.read_text().splitlines() if line.startswith("child ")]


async def supervised(watched: Watched, story: Callable[[], Awaitable[None]]) -> None:
    """Tell a story while the engine runs; stop it afterwards, and check that nothing is left."""
    async with asyncio.TaskGroup() as group:
        group.create_task(watched.engine.run())
        try:
            await story()
        finally:
            await watched.engine.stop(seconds=2)
    assert not any(alive(pid) for pid in watched.children())


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_an_engine_is_ready_once_the_callable_succeeds_and_stop_leaves_nothing(room: Path) -> None:
    watched = Watched(room)

    async def story() -> None:
        await watched.hears("ready")
        assert watched.engine.is_ready
        assert watched.engine.pid == os.getsid(watched.engine.pid)
        assert watched.engine.last_line().startswith("environment")

    await supervised(watched, story)
    assert [event.kind for event in watched.events] == ["starting", "ready", "stopped"]
    assert watched.engine.pid is None
    assert not (room / "e.sock.session").exists()


async def test_a_dead_engine_takes_its_children_along_and_is_started_again_on_its_stale_socket(room: Path) -> None:
    watched = Watched(room)

    async def story() -> None:
        await watched.hears("ready")
        first = watched.engine.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await watched.hears("restarting")
        assert "killed by signal 9" in (await watched.hears("died")).sentence
        assert not alive(watched.children()[0])
        assert watched.socket.exists()  # a stale one: binding to it would fail
        await watched.hears("ready", times=2)
        assert watched.engine.pid != first

    await supervised(watched, story)


async def test_an_engine_that_ignores_sigterm_is_killed(room: Path) -> None:
    watched = Watched(room, "--stubborn")

    async def story() -> None:
        await watched.hears("ready")

    await supervised(watched, story)


async def test_a_cancelled_supervisor_leaves_no_engine(room: Path) -> None:
    watched = Watched(room)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(watched.engine.run())
        await watched.hears("ready")
        pid = watched.engine.pid
        running.cancel()
    assert pid is not None
    assert not alive(pid)
    assert not any(alive(child) for child in watched.children())


async def test_an_engine_that_never_answers_is_given_up_after_its_time(room: Path) -> None:
    watched = Watched(room, "--deaf", start_seconds=0.5)

    async def story() -> None:
        assert "no token within" in (await watched.hears("died")).sentence
        assert not any(alive(pid) for pid in watched.children())

    await supervised(watched, story)


async def test_a_command_that_cannot_run_is_said_in_the_log(room: Path) -> None:
    watched = Watched(room, command=[str(room / "no-such-engine")])

    async def story() -> None:
        assert "died while starting (status 1)" in (await watched.hears("died")).sentence
        assert watched.engine.last_line().endswith("No such file or directory")

    await supervised(watched, story)


def kill_a_supervisor(room: Path) -> tuple[int, int]:
    """Start one with its tiny engine, kill -9 it, and return the numbers of the engine and of the engine's child."""
    log = room / "logs" / "engine.log"
    command = [sys.executable, "-m", "tests.gateway.engine.tiny_supervisor", str(room / "e.sock"), str(log)]
    environment = {**os.environ, "GATEWAY_ADMIN_KEY": "secret"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as supervisor:
        assert supervisor.stdout is not None
        engine = int(supervisor.stdout.readline())
        supervisor.kill()
    child = int(log.read_text().split()[1])
    return engine, child


async def test_kill_9_of_the_supervisor_kills_the_engine_and_the_next_start_ends_what_it_left(room: Path) -> None:
    engine, child = kill_a_supervisor(room)
    for _ in range(100):
        if not alive(engine):
            break
        await asyncio.sleep(0.02)
    assert not alive(engine)
    assert alive(child)  # it did not ask the kernel, as vLLM's own children do through our plugin
    watched = Watched(room)

    async def story() -> None:
        await watched.hears("ready")
        assert not alive(child)

    await supervised(watched, story)
    assert "an earlier engine left" in watched.events[0].sentence


async def test_the_gateways_own_settings_and_secrets_do_not_reach_the_engine(room: Path) -> None:
    _, child = kill_a_supervisor(room)
    os.kill(child, signal.SIGKILL)
    names = (room / "logs" / "engine.log").read_text().splitlines()[1].split()
    assert "PATH" in names
    assert not [name for name in names if name.startswith("GATEWAY_")]


async def test_a_process_that_got_the_number_of_an_old_engine_is_spared(room: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as innocent:  # noqa: ASYNC220 - it only forks
        record = session.Record(room / "record")
        record.write(innocent.pid)
        note = json.loads((room / "record").read_text())
        (room / "record").write_text(json.dumps(note | {"started": note["started"] - 1}))
        assert await record.reap() == 0
        (room / "record").write_text(json.dumps(note | {"boot": "another"}))
        assert await record.reap() == 0
        assert innocent.poll() is None
        (room / "record").write_text(json.dumps(note))
        assert await record.reap() == 1
    assert innocent.returncode == -signal.SIGKILL


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"session": null, "started": 1, "boot": "x"}', "not json"])
async def test_a_broken_record_reaps_nobody(room: Path, text: str) -> None:
    (room / "record").write_text(text)
    assert await session.Record(room / "record").reap() == 0


async def test_a_long_log_is_put_aside_and_three_are_kept(room: Path) -> None:
    log = room / "logs" / "engine.log"
    log.parent.mkdir()
    for name in ("engine.log", "engine.log.1", "engine.log.2", "engine.log.3"):
        (log.parent / name).write_text(name)
    os.truncate(log, 17 * 1024 * 1024)
    watched = Watched(room)

    async def story() -> None:
        await watched.hears("ready")

    await supervised(watched, story)
    kept = {path.name: path.read_text()[:12] for path in log.parent.iterdir() if path != log}
    assert kept == {"engine.log.1": "engine.log\0\0", "engine.log.2": "engine.log.1", "engine.log.3": "engine.log.2"}
    assert log.read_text().startswith("child")


async def test_the_pause_doubles_from_one_to_thirty_seconds_and_a_healthy_minute_forgives() -> None:
    pauses, pause = [], 0.0
    for healthy in (0, 0, 59, 0, 0, 0, 0, 61, 0):
        pause = next_pause(pause, healthy)
        pauses.append(pause)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 1, 2]


async def test_the_shipped_fake_runs_as_a_child_and_comes_back_with_another_boot_id(room: Path) -> None:
    settings = Settings(home=room, engine=EngineSettings(max_loras=3))
    socket = room / "e.sock"
    command, _ = fake_command(settings, socket)
    engine = HttpEngine(f"unix:{socket}", base_model=settings.base_model, timeouts=settings.timeouts)
    watched = Watched(room, command=command)

    async def story() -> None:
        await watched.hears("ready")
        before = await engine.status()
        assert before.slots == 3
        pid = watched.engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await watched.hears("ready", times=2)
        assert (await engine.status()).boot_id != before.boot_id

    async with asyncio.TaskGroup() as group:
        group.create_task(watched.engine.run())
        try:
            await story()
        finally:
            await watched.engine.stop(seconds=2)
            await engine.aclose()
