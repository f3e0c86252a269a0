"""An engine that is alive and says nothing: found by its silence, ended, started again. A busy one is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.engine.command import fake_command
from gateway.engine.process import EngineEvent, EngineProcess
from gateway.settings import EngineSettings, Settings
from gateway.supervisor import Pulse
from tests.gateway.serving.house import until

pytestmark = [pytest.mark.processes, pytest.mark.asyncio(loop_factories=["asyncio"])]

SILENCE = 1.2


class Watched:
    """The shipped fake as a supervised child with the supervisor's own pulse; `client` speaks to it."""

    def __init__(self, room: Path, *args: str) -> None:
        settings = Settings(home=room, engine=EngineSettings(args=list(args)))
        self.socket = room / "e.sock"
        self.events: list[EngineEvent] = []
        pulse = Pulse(f"unix:{self.socket}", settings)
        command, env = fake_command(settings, self.socket)
        self.engine = EngineProcess(
            command,
            env=env,
            socket=self.socket,
            log=room / "engine.log",
            start_seconds=20,
            ready=pulse.probe,
            lives=pulse.feel,
            silence_seconds=SILENCE,
            tell=self.events.append,
        )
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://fake", timeout=30)

    def heard(self, kind: str) -> list[str]:
        return [event.sentence for event in self.events if event.kind == kind]

    async def boot(self) -> str:
        return str((await self.client.get("/tuneloop/engine")).json()["boot_id"])

    async def complete(self, tokens: int) -> Any:
        body = {"prompt": "x", "max_tokens": tokens, "ignore_eos": True}
        return (await self.client.post("/v1/completions", json=body)).raise_for_status().json()


@asynccontextmanager
async def watched(room: Path, *args: str) -> AsyncIterator[Watched]:
    one = Watched(room, *args)
    async with asyncio.TaskGroup() as group:
        group.create_task(one.engine.run())
        try:
            await until(lambda: one.heard("ready"), seconds=20)
            yield one
        finally:
            await one.client.aclose()
            await one.engine.stop(seconds=2)


async def test_an_engine_that_hangs_is_ended_and_started_again(sockets: Path) -> None:
    async with watched(sockets) as one:
        before = await one.boot()
        await one.client.post("/fake/faults", json={"hang": True})
        assert (await one.client.get("/health")).status_code == 200
        await until(lambda: len(one.heard("ready")) == 2, seconds=20)
        assert "gave no token for" in one.heard("died")[0]
        assert await one.boot() != before
        assert (await one.complete(1))["choices"]


async def test_an_idle_engine_is_not_silent(sockets: Path) -> None:
    async with watched(sockets) as one:
        await asyncio.sleep(3 * SILENCE)
        assert not one.heard("died")


async def test_a_queue_longer_than_the_silence_is_not_silence_either(sockets: Path) -> None:
    async with watched(sockets, "--slots", "1", "--itl", "0.02") as one, asyncio.TaskGroup() as group:
        crowd = [group.create_task(one.complete(20)) for _ in range(12)]  # 5 s of work, one after the other
        await asyncio.sleep(3 * SILENCE)
        assert not one.heard("died")
        assert not all(task.done() for task in crowd)
        for task in crowd:
            task.cancel()
