"""What both measurements are played on: two tenants, their adapters in the store, and their keys."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx

from adapters.manifest import Lineage, Manifest
from adapters.store import AdapterStore
from gateway.settings import Settings
from loadtests.demo.gateway import Gateway
from loadtests.engine.random_adapter import ALL_LINEAR, write_adapter

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MODEL = Path(".tuneloop/models/SmolLM2-135M-Instruct")
RANK = 16
SECONDS = 300.0


class Stage:
    """A gateway with tenants; adapters are made on demand, rank 16 on all linear layers, each with its own answers."""

    def __init__(self, gateway: Gateway, home: Path, model: Path) -> None:
        self.gateway = gateway
        self.model = model
        self.home = home
        self.keys: dict[str, str] = {}
        self._seeds = itertools.count(1)

    def tenant(self, name: str) -> None:
        self.gateway.tenant(name, store_content=False)
        self.keys[name] = self.gateway.key(name, ["inference"])

    def version(self, tenant: str, name: str) -> tuple[str, Path]:
        """A new registered version of `tenant/name`: its ref, and its directory in the store."""
        seed = next(self._seeds)
        with tempfile.TemporaryDirectory() as room:
            peft = write_adapter(Path(room) / "peft", self.model, seed=seed, rank=RANK, targets=ALL_LINEAR)
            manifest = Manifest(
                base_model=BASE_MODEL,
                rank=RANK,
                alpha=RANK,
                lineage=Lineage(run_id=f"random-{seed}", dataset_digest="none"),
                created_at=datetime.now(UTC),
            )
            store = AdapterStore(str(self.home / "adapters"))
            published = store.publish(peft, tenant=tenant, name=name, manifest=manifest)
        self.gateway.call("POST", f"/tenants/{tenant}/adapters", {"ref": str(published.ref)})
        return str(published.ref), store.open(published.ref).path

    def alias(self, tenant: str, name: str, ref: str) -> None:
        self.gateway.point(tenant, name, {"tuned": (1.0, ref)})

    def resident(self) -> set[str]:
        return set(self.gateway.call("GET", "/engine")["resident"])

    def client(self, tenant: str) -> httpx.AsyncClient:
        """A client of the gateway with a tenant's key."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        headers = {"authorization": f"Bearer {self.keys[tenant]}"}
        return httpx.AsyncClient(base_url=self.gateway.url, headers=headers, timeout=SECONDS, limits=limits)

    def engine(self) -> httpx.AsyncClient:
        """A client of the gateway's own engine, past the gateway."""
        socket = Settings(home=self.home).run_dir / "engine.sock"
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        return httpx.AsyncClient(base_url="http://engine", transport=transport, timeout=SECONDS)


@contextmanager
def private_home(home: Path | None) -> Iterator[Path]:
    """The directory that was asked for, or one that is gone afterwards."""
    if home is not None:
        yield home
        return
    with tempfile.TemporaryDirectory(prefix="tuneloop-engine-", ignore_cleanup_errors=True) as room:
        yield Path(room)
