"""Asynchronous tests of the engine seam run on both event loops: on uvloop, as in production, and on asyncio's."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.engine import fake
from gateway.engine.client import HttpEngine
from gateway.engine.fake_engine import Options
from gateway.settings import TimeoutSettings

BASE_MODEL = "test/base"


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory with a short path: those of Unix sockets end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="tl-") as directory:
        yield Path(directory)


@pytest.fixture
async def engine(sockets: Path) -> AsyncIterator[tuple[fake.Running, HttpEngine]]:
    """The shipped fake on a Unix socket, with a client on it."""
    async with fake.running(Options(base_model=BASE_MODEL), uds=str(sockets / "engine.sock")) as running:
        client = HttpEngine(
            running.url, base_model=BASE_MODEL, timeouts=TimeoutSettings(connect=2, first_byte=5, idle=5)
        )
        yield running, client
        await client.aclose()
