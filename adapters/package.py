"""The three files that make an adapter version, written so that equal content has equal bytes, and their address.

A trainer's directory holds more than may be served (model cards, pickled arguments) and leaks local paths; what is
packed is the weights as they are, a configuration written anew with the base model's public name, and the manifest.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from adapters.errors import InvalidAdapter
from adapters.manifest import MANIFEST, Manifest
from adapters.peft_config import CONFIG
from adapters.weights import WEIGHTS, BaseShape, Limits, check_manifest, inspect, open_plain

FILES = (CONFIG, WEIGHTS, MANIFEST)
"""What a published directory holds: exactly these."""

_CHUNK = 1024 * 1024


def pack(
    directory: Path, into: Path, manifest: Manifest, *, limits: Limits | None = None, base: BaseShape | None = None
) -> Manifest:
    """Make `into` (new) a publishable copy of a PEFT directory; return the manifest written there, `files` filled in.

    Only the two files that matter are taken, whatever else lies there. The copy is what gets inspected, so nobody can
    change it in between; it is on disk (fsync) when this returns. A manifest that lists `files` was packed before, and
    must be true of these to the byte. Raises `InvalidAdapter`.
    """
    limits = limits or Limits()
    into.mkdir()
    for name in (CONFIG, WEIGHTS):
        with open_plain(directory / name) as source, (into / name).open("xb") as target:
            if os.fstat(source.fileno()).st_size > limits.max_bytes:
                raise InvalidAdapter(f"{name} is too large: retrain with a lower rank or fewer target modules.")
            shutil.copyfileobj(source, target, _CHUNK)
    found = inspect(into, limits=limits, base=base)
    check_manifest(manifest, found.config, found.files)
    config = found.config.to_json(manifest.base_model)
    (into / CONFIG).write_bytes(config)
    files = {CONFIG: hashlib.sha256(config).hexdigest(), WEIGHTS: found.files[WEIGHTS]}
    written = manifest.model_copy(update={"files": files, "target_modules": found.target_modules})
    (into / MANIFEST).write_bytes(written.to_json())
    for name in FILES:
        _settle(into / name)
    fsync_directory(into)
    return written


def digest_of(manifest: bytes, files: Mapping[str, str]) -> str:
    """The content's address, `sha256:…`: over the sorted names and SHA-256s of all files, the manifest's among them."""
    everything = {**files, MANIFEST: hashlib.sha256(manifest).hexdigest()}
    lines = "".join(f"{name} {everything[name]}\n" for name in sorted(everything))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def sizes_of(directory: Path) -> dict[Path, int]:
    """Those of the three files that are there, with their sizes in bytes; another trainer's has no manifest."""
    return {file: file.stat().st_size for name in FILES if (file := directory / name).is_file()}


def tar_of(sizes: Mapping[Path, int]) -> Iterator[bytes]:
    """Files as a plain tar, a piece at a time: weights of any size go through one megabyte of memory."""
    for path, size in sizes.items():
        entry = tarfile.TarInfo(path.name)
        entry.size = size
        yield entry.tobuf(tarfile.USTAR_FORMAT)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def tar_size(sizes: Mapping[Path, int]) -> int:
    """Bytes of `tar_of`."""
    block = tarfile.BLOCKSIZE
    return sum(block + size + -size % block for size in sizes.values()) + 2 * block


def fsync_directory(directory: Path) -> None:
    """Make the directory's entries survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle(path: Path) -> None:
    """Read-only, and on the disk."""
    path.chmod(0o444)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
