"""The adapter that a run goes on from: fetched once, checked, and kept in the run's directory as `start/`.

It comes from a directory, from the store or from the gateway. It knows no torch; how it is trained on is model.py's.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

from adapters.errors import ContractError
from adapters.manifest import MANIFEST, Manifest
from adapters.package import FILES
from adapters.ref import AdapterRef
from adapters.store import AdapterStore
from adapters.weights import inspect
from trainer.config import RunSettings
from trainer.errors import InvalidConfig
from trainer.gateway_client import Gateway
from trainer.runlog import RunDirectory


def keep(run: RunDirectory, settings: RunSettings) -> None:
    """Have `run.start` if the settings want one. Safe to repeat. Raises `InvalidConfig` if it does not fit."""
    wanted = settings.training.start_from
    if wanted is None or run.start is not None:
        return
    draft = run.path / "start.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    ref = None if Path(wanted).is_dir() else _ref(wanted)
    if ref is None:
        _copy(Path(wanted), draft)
    elif settings.publish.store is not None:
        _copy(AdapterStore(settings.publish.store).open(ref).path, draft)
    elif settings.gateway.url is not None:
        _fetch(settings, ref, draft)
    else:
        raise InvalidConfig(
            f"training.start_from {wanted} has nowhere to come from", "set publish.store or GATEWAY_URL"
        )
    _check(draft, settings)
    facts: dict[str, Any] = {"from": wanted if ref is None else str(ref)}
    known = _continued(draft) if ref is None else str(ref)
    run.remember(start=facts if known is None else {**facts, "ref": known})
    draft.rename(run.path / "start")  # last: with it there is one


def _ref(text: str) -> AdapterRef:
    try:
        return AdapterRef.parse(text)
    except ContractError as error:
        remedy = "write it as tenant/name@version, or name a directory that exists"
        raise InvalidConfig(f"training.start_from {text!r} is neither a version nor a directory", remedy) from error


def _copy(source: Path, into: Path) -> None:
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, into / name)


def _fetch(settings: RunSettings, ref: AdapterRef, into: Path) -> None:
    packed = into.parent / "start.tar"
    with Gateway(settings.gateway) as gateway:
        gateway.archive(ref.tenant, str(ref), packed)
    with tarfile.open(packed) as archive:
        for entry in archive:
            source = archive.extractfile(entry) if entry.isreg() and entry.name in FILES else None
            if source is not None:
                with (into / entry.name).open("wb") as file:
                    shutil.copyfileobj(source, file)
    packed.unlink()


def _continued(directory: Path) -> str | None:
    """The version that a directory's own training went on from: what that one learnt is in these weights, too."""
    return Manifest.read(directory).lineage.continues if (directory / MANIFEST).exists() else None


def _check(directory: Path, settings: RunSettings) -> None:
    """Refuse one of another base, or of another rank than the settings promise to the engine."""
    found = inspect(directory)
    if (directory / MANIFEST).exists() and (base := Manifest.read(directory).base_model) != settings.base_model:
        raise InvalidConfig(f"training.start_from was trained on {base}", "start from a version of this base_model")
    if found.rank != settings.lora.rank:
        raise InvalidConfig(
            f"training.start_from has rank {found.rank}, but lora.rank is {settings.lora.rank}",
            f"set lora.rank to {found.rank}",
        )
