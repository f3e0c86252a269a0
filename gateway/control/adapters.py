"""Adapter versions: taken in, listed, retired. The weights stay in the adapter store; here is which may be served."""

from __future__ import annotations

import builtins
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from adapters.manifest import MANIFEST, Lineage, Manifest
from adapters.ref import AdapterRef
from adapters.store import AdapterStore, Opened, Published
from adapters.weights import BaseShape, Limits, inspect
from gateway.control.names import check_name, require_tenant, unknown_adapter
from gateway.control.shelf import in_store
from gateway.control.tar import unpack
from gateway.domain import Adapter
from gateway.errors import AdapterRefused, Conflict
from gateway.store import adapters, aliases, preparations
from gateway.store.changes import change
from gateway.store.database import Database


class Adapters:
    """`base_model` is the served model's name; `base` its shapes and `base_revision` its fingerprint, where known."""

    def __init__(
        self,
        db: Database,
        store: AdapterStore,
        *,
        base_model: str,
        base: BaseShape | None = None,
        base_revision: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._db = db
        self._store = store
        self._base_model = base_model
        self._base = base
        self._base_revision = base_revision
        self._limits = limits or Limits()

    async def register(self, ref: AdapterRef, *, actor: str) -> Adapter:
        """Let a version that is in the store be served, or only evaluated where its gate refused it or has not decided.
        Registering twice is fine.

        Its bytes are verified and inspected here, whoever put them there. Raises `NotFound`, `AdapterRefused`, and
        `Conflict` for a retired one.
        """
        check_name("an adapter", ref.name, reserved=True)
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, ref.tenant)
            known = await adapters.find(connection, ref)
        if known is not None and not known.retired:
            return known
        opened = await in_store(self._open, ref)
        adapter = _registered(ref, opened)
        async with change(self._db, "adapter.register", str(ref), tenant=ref.tenant, actor=actor) as new:
            new.detail.update(digest=adapter.digest, rank=adapter.rank, verdict=adapter.verdict)
            known = await adapters.find(new.connection, ref)  # again: two may register at once
            if known is not None and known.retired:
                raise Conflict(f"{ref} is retired.", remedy="Publish a new version.", param="ref")
            if known is None:
                await adapters.insert(new.connection, adapter)
        return adapter

    async def upload(self, tenant: str, name: str, tar: Path, *, actor: str) -> Adapter:
        """Publish the files of a plain tar as a version of `tenant/name`, and register it.

        The same content under the same name is the same version. The tar stays the caller's to remove. Raises as
        `register` does, and `InvalidRequest` for a bad name.
        """
        check_name("an adapter", name, reserved=True)
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
        published = await in_store(self._publish, tenant, name, tar)
        return await self.register(published.ref, actor=actor)

    async def list(self, tenant: str) -> builtins.list[Adapter]:
        """By name and version, retired ones too. Raises `NotFound` for an unknown tenant."""
        async with self._db.transaction(picture=True) as connection:
            await require_tenant(connection, tenant)
            return await adapters.of_tenant(connection, tenant)

    async def retire(self, ref: AdapterRef, *, actor: str) -> Adapter:
        """Never serve it again. Retiring twice is fine. Raises `NotFound`, and `Conflict` while something needs it."""
        async with change(self._db, "adapter.retire", str(ref), tenant=ref.tenant, actor=actor) as new:
            known = await adapters.find(new.connection, ref)
            if known is None:
                raise unknown_adapter(ref)
            users = await aliases.referring(new.connection, ref)
            if users:
                raise Conflict(
                    f"The alias `{users[0]}` points to {ref}, mirrors requests to it, or would go back to it.",
                    remedy="Point it elsewhere; what it pointed to before that stays for one rollback.",
                )
            if ref in await preparations.refs(new.connection):
                raise Conflict(f"{ref} is being prepared for an alias.", remedy="Try again when that is done.")
            await adapters.retire(new.connection, ref)
        # After the commit: a crash in between leaves a version that is retired here, and retiring again completes it.
        await in_store(self._store.retire, ref)
        return replace(known, retired=True)

    async def describe(self, ref: AdapterRef) -> Manifest:
        """What a registered version is made of and where it came from. Raises `NotFound`."""
        await self._require(ref)
        return (await in_store(self._store.get, ref)).manifest

    async def files(self, ref: AdapterRef) -> Path:
        """The local directory of a registered version's three files, verified; a retired one's, too. Never write there.

        Raises `NotFound`, and `AdapterRefused` for one that is damaged.
        """
        await self._require(ref)
        return (await in_store(self._store.open, ref)).path

    async def _require(self, ref: AdapterRef) -> None:
        async with self._db.transaction(picture=True) as connection:
            if await adapters.find(connection, ref) is None:
                raise unknown_adapter(ref)

    def _open(self, ref: AdapterRef) -> Opened:
        stored = self._store.get(ref)
        if stored.retired:
            raise Conflict(f"{ref} is retired.", remedy="Publish a new version.", param="ref")
        self._check_base(stored.manifest)
        opened = self._store.open(ref)
        inspect(opened.path, limits=self._limits, base=self._base)
        return opened

    def _publish(self, tenant: str, name: str, tar: Path) -> Published:
        with tempfile.TemporaryDirectory(dir=tar.parent, prefix="unpacked-") as text:
            directory = Path(text)
            unpack(tar, directory, max_bytes=self._limits.max_bytes)
            manifest = Manifest.read(directory) if (directory / MANIFEST).exists() else _imported(directory)
            self._check_base(manifest)
            return self._store.publish(
                directory, tenant=tenant, name=name, manifest=manifest, limits=self._limits, base=self._base
            )

    def _check_base(self, manifest: Manifest) -> None:
        if manifest.base_model != self._base_model:
            raise AdapterRefused(
                f"Trained on {manifest.base_model}, but {self._base_model} is served.",
                remedy="Train on the served model.",
            )
        if self._base_revision and manifest.base_revision and manifest.base_revision != self._base_revision:
            raise AdapterRefused(
                f"Trained on other weights of {self._base_model} than are served.",
                remedy="Train on the served model's files.",
            )


def _registered(ref: AdapterRef, opened: Opened) -> Adapter:
    manifest, gate = opened.manifest, opened.manifest.gate
    verdict, reason = (gate.verdict, gate.reason) if gate is not None else (None, None)
    before = AdapterRef.parse(manifest.lineage.continues) if manifest.lineage.continues is not None else None
    return Adapter(
        ref, opened.digest, manifest.rank, manifest.base_model, verdict=verdict, reason=reason, continues=before
    )


def _imported(directory: Path) -> Manifest:
    """The manifest of a plain PEFT directory that another trainer made: what its files say, and no lineage.

    Its moment is the beginning of time, so that the same files always make the same version.
    """
    found = inspect(directory)
    return Manifest(
        base_model=found.base_model,
        rank=found.rank,
        alpha=found.alpha,
        lineage=Lineage(run_id="imported", dataset_digest="unknown"),
        created_at=datetime.fromtimestamp(0, UTC),
    )
