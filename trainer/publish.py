"""From a trained PEFT directory to a version that can be served: packed, described, and put where gateways look.

Packing happens once a run, so that publishing again (after a crash, or to another place) publishes the same bytes.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.lineage import LineageRow
from adapters.manifest import MANIFEST, Gate, Lineage, Manifest
from adapters.package import FILES, digest_of, pack
from adapters.store import AdapterStore
from adapters.weights import BaseShape, base_revision, inspect
from trainer.config import RunSettings
from trainer.gateway_client import Gateway
from trainer.runlog import RunDirectory


@dataclass(frozen=True, slots=True)
class Publication:
    """`ref` is `None` when there was nowhere to publish to; `digest` is the content's address in any store."""

    ref: str | None
    digest: str


def package(run: RunDirectory, saved: Path, settings: RunSettings, *, base: Path, metrics: dict[str, float]) -> None:
    """Pack PEFT's directory `saved` as the run's adapter, with its manifest. `base` holds the base model's files.

    Raises `InvalidAdapter` if the result could not be served.
    """
    found = inspect(saved, base=BaseShape.of(base))
    before = run.about.get("start", {}).get("ref")
    manifest = Manifest(
        base_model=settings.base_model,
        base_revision=base_revision(base),
        rank=found.rank,
        alpha=found.alpha,
        target_modules=found.target_modules,
        lineage=Lineage(
            run_id=run.id,
            dataset_digest=run.about["dataset_digest"],
            parent=settings.publish.parent or before,
            continues=before,
            examples=run.about["examples"],
            feedback=run.about["feedback"],
            recipe=settings.recipe,
        ),
        metrics=metrics,
        created_at=datetime.now(UTC),
    )
    draft = run.path / "adapter.draft"
    shutil.rmtree(draft, ignore_errors=True)
    pack(saved, draft, manifest)
    shutil.rmtree(run.adapter, ignore_errors=True)  # of a try that was killed before it could say that it is done
    draft.rename(run.adapter)


def publish(run: RunDirectory, settings: RunSettings) -> Publication:
    """Put the run's adapter into the store and tell the gateway, or upload it there. Safe to repeat."""
    target = settings.publish
    manifest = Manifest.read(run.adapter)
    if target.tenant is None or target.name is None:
        return Publication(None, digest_of(manifest.to_json(), manifest.files))
    return _publish(run, manifest, settings, target.tenant, target.name)


def publish_trial(run: RunDirectory, settings: RunSettings, *, name: str, mark: str) -> Publication:
    """The same weights as version of an adapter that is there to be evaluated, and never served. Safe to repeat with
    the same `mark`; another one makes another version."""
    assert settings.publish.tenant is not None  # a gate needs one (trainer.config)
    gate = Gate(verdict="undecided", reason=f"trial {mark} of run {run.id}: to be evaluated, never to be served")
    manifest = Manifest.read(run.adapter).model_copy(update={"gate": gate})
    return _publish(run, manifest, settings, settings.publish.tenant, name)


def stamp(run: RunDirectory, gate: Gate) -> None:
    """Write the verdict into the manifest of the run's adapter, in one step."""
    manifest = Manifest.read(run.adapter)
    if manifest.gate == gate:
        return
    draft = run.path / "manifest.draft"
    with draft.open("wb") as file:
        file.write(manifest.model_copy(update={"gate": gate}).to_json())
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o444)
    draft.replace(run.adapter / MANIFEST)


def _publish(run: RunDirectory, manifest: Manifest, settings: RunSettings, tenant: str, name: str) -> Publication:
    digest, ref = digest_of(manifest.to_json(), manifest.files), None
    if settings.publish.store is not None:
        stored = AdapterStore(settings.publish.store).publish(run.adapter, tenant=tenant, name=name, manifest=manifest)
        ref, digest = str(stored.ref), stored.digest
    if settings.gateway.url is None:
        return Publication(ref, digest)
    with Gateway(settings.gateway) as gateway:
        if ref is not None:
            registered = gateway.register(tenant, ref)
        else:
            registered = gateway.upload(tenant, name, _archive(run, manifest))
        gateway.tell_lineage(tenant, registered.ref, map(LineageRow.of, run.data()[0]))
    return Publication(registered.ref, registered.digest)


def _archive(run: RunDirectory, manifest: Manifest) -> Path:
    """A plain tar of the three files, with this manifest; it says nothing of who made it where."""
    path = run.path / "adapter.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in FILES:
            entry = tarfile.TarInfo(name)
            if name == MANIFEST:
                text = manifest.to_json()
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text))
                continue
            entry.size = (run.adapter / name).stat().st_size
            with (run.adapter / name).open("rb") as file:
                archive.addfile(entry, file)
    return path
