"""Both planes as a fixture, on uvloop as in production."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop
from openfeature import api

from gateway.store.database import Database
from tests.gateway.edges.whole import Whole, both_planes


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def whole(db: Database, tmp_path: Path) -> AsyncIterator[Whole]:
    async with both_planes(db, tmp_path) as one:
        yield one
        api.clear_providers()
