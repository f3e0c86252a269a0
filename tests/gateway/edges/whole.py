"""Both planes on one socket, as a worker has them: the control plane on a real database, the data plane on the fake
engine. `show` gives both one picture; with `follow` they follow the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.snapshot import Snapshot
from gateway.store.database import Database
from gateway.store.inferences import write_inferences
from tests.gateway.api.installation import Installation, installed
from tests.gateway.serving.house import House, open_house


@dataclass
class Whole:
    house: House
    here: Installation

    @property
    def url(self) -> str:
        return self.house.url

    def show(self, snapshot: Snapshot) -> None:
        self.house.current.snapshot = self.here.current.snapshot = snapshot

    async def follow(self) -> None:
        """Until both know what the database says."""
        await self.here.settle()
        self.house.current.snapshot = self.here.current.snapshot

    async def written(self) -> None:
        """What the data plane has recorded so far is in the database."""
        await write_inferences(self.here.db, self.house.records.rows)


@asynccontextmanager
async def both_planes(db: Database, directory: Path) -> AsyncIterator[Whole]:
    async with installed(db, directory) as here, open_house(other=here.app) as house:
        yield Whole(house, here)
