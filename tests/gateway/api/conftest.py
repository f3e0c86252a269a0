"""An installation for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.store.database import Database
from tests.gateway.api.installation import Installation, installed


@pytest.fixture
async def here(db: Database, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(db, tmp_path) as installation:
        yield installation
