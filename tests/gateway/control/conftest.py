"""The control plane's rooms for a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.store import AdapterStore
from gateway.store.database import Database
from tests.gateway.control.rooms import Rooms


@pytest.fixture
def rooms(db: Database, tmp_path: Path) -> Rooms:
    return Rooms(db, AdapterStore(str(tmp_path / "store"), cache=tmp_path / "cache"), tmp_path)
