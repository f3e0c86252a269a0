"""The adapter store: content-addressed, immutable versions behind any fsspec URL; a plain directory by default.

    objects/<sha256>/{adapter_config.json, adapter_model.safetensors, manifest.json}
    refs/<tenant>/<name>/<version>.json      {"digest", "created_at"}; creating it allocates the version
    retired/<tenant>/<name>/<version>.json   {"retired_at"}

A version exists from the moment its ref does, and its ref is made last: a process killed at any step leaves either the
whole version or none. Nothing is ever rewritten or deleted, since an engine may read an adapter's directory long after
it was loaded. All calls block (use `asyncio.to_thread`) and are safe between threads, processes and machines.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters import strictjson
from adapters.errors import AdapterCorrupted, AdapterMissing, ContractError, InvalidAdapter, StoreUnavailable
from adapters.manifest import MANIFEST, Manifest
from adapters.package import FILES, digest_of, pack
from adapters.places import place_at
from adapters.ref import AdapterRef, is_slug
from adapters.weights import BaseShape, Limits

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_ENTRY = re.compile(r"([1-9][0-9]{0,8})\.json\Z")
_CORRUPTED = "retire it and publish the adapter again"

Fingerprint = tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Published:
    """A version and the address of its content."""

    ref: AdapterRef
    digest: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of a version without reading its weights."""

    ref: AdapterRef
    digest: str
    manifest: Manifest
    retired: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """A version whose bytes were verified, in the local directory `path`: never write there."""

    ref: AdapterRef
    digest: str
    path: Path
    manifest: Manifest


class AdapterStore:
    """`url` is a directory or an fsspec URL. `cache` holds local copies of a remote store's versions.

    The default cache is in the home directory and not in a temporary one: what cleans those would take files from
    under a running engine.
    """

    def __init__(self, url: str, *, cache: Path | None = None) -> None:
        self._place = place_at(url)
        self._url = url
        self._cache = cache
        self._verified: dict[str, Fingerprint] = {}

    def publish(
        self,
        directory: Path,
        *,
        tenant: str,
        name: str,
        manifest: Manifest,
        limits: Limits | None = None,
        base: BaseShape | None = None,
    ) -> Published:
        """Make a PEFT directory the next version of `tenant/name`. The same content again is the same version.

        Raises `InvalidAdapter`, `InvalidRef`, `StoreUnavailable`.
        """
        AdapterRef(tenant, name, 1)  # refuses a bad name before anything is written
        with _reachable(), self._place.staging() as stage:
            draft = stage / "draft"
            written = pack(directory, draft, manifest, limits=limits, base=base)
            digest = digest_of(written.to_json(), written.files)
            self._place.keep(_object(digest), draft)
            return Published(self._allocate(tenant, name, digest), digest)

    def open(self, ref: AdapterRef) -> Opened:
        """The version's verified local directory. Raises `AdapterMissing`, `AdapterCorrupted`, `StoreUnavailable`.

        The bytes are hashed the first time; afterwards names, sizes and times must be the same, or they are again.
        """
        with _reachable():
            digest = self._digest(ref)
            try:
                path = self._place.local(_object(digest), self._copies, lambda copy: self._verify(ref, digest, copy))
                return Opened(ref, digest, path, self._verify(ref, digest, path))
            except (FileNotFoundError, NotADirectoryError) as error:
                raise AdapterCorrupted(f"files of {ref} are gone from the store: {_CORRUPTED}.") from error

    def get(self, ref: AdapterRef) -> Stored:
        """What is known of a version; its manifest is verified. Raises as `open` does."""
        with _reachable():
            digest = self._digest(ref)
            data = self._place.read(f"{_object(digest)}/{MANIFEST}")
            retired = self._place.read(_entry("retired", ref)) is not None
            return Stored(ref, digest, _manifest(ref, digest, data), retired)

    def versions(self, tenant: str, name: str) -> list[AdapterRef]:
        """All versions of one adapter, oldest first, retired ones too."""
        if not (is_slug(tenant) and is_slug(name)):
            return []
        with _reachable():
            return [AdapterRef(tenant, name, version) for version in self._numbers(tenant, name)]

    def refs(self, tenant: str) -> list[AdapterRef]:
        """All versions of a tenant's adapters, by name, oldest first."""
        if not is_slug(tenant):
            return []
        with _reachable():
            names = sorted(name for name in self._place.names(f"refs/{tenant}") if is_slug(name))
        return [ref for name in names for ref in self.versions(tenant, name)]

    def retire(self, ref: AdapterRef) -> None:
        """Mark a version as no longer to be used; its files stay. Retiring twice is fine. Raises `AdapterMissing`."""
        with _reachable():
            self._digest(ref)
            self._place.create(_entry("retired", ref), _json({"retired_at": _now()}))

    def _allocate(self, tenant: str, name: str, digest: str) -> AdapterRef:
        """The version that has this digest, else the next free number.

        Everybody looks at version n before creating n + 1, so two publishers of the same content meet at one version.
        """
        record = _json({"digest": digest, "created_at": _now()})
        version = 0
        for version in self._numbers(tenant, name):
            ref = AdapterRef(tenant, name, version)
            if self._digest(ref) == digest:
                return ref
        while True:
            version += 1
            ref = AdapterRef(tenant, name, version)
            if self._place.create(_entry("refs", ref), record) or self._digest(ref) == digest:
                return ref

    def _numbers(self, tenant: str, name: str) -> list[int]:
        matches = (_ENTRY.match(entry) for entry in self._place.names(f"refs/{tenant}/{name}"))
        return sorted(int(match[1]) for match in matches if match)

    def _digest(self, ref: AdapterRef) -> str:
        data = self._place.read(_entry("refs", ref))
        if data is None:
            raise AdapterMissing(f"there is no {ref} in the store: list the versions, or publish it.")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            digest = strictjson.parse(data)["digest"]
            if isinstance(digest, str) and _DIGEST.match(digest):
                return digest
        raise AdapterCorrupted(f"the store's entry of {ref} is damaged: {_CORRUPTED}.")

    def _copies(self) -> Path:
        mark = hashlib.sha256(self._url.encode()).hexdigest()[:12]
        return self._cache or Path.home() / ".cache" / "tuneloop" / mark

    def _verify(self, ref: AdapterRef, digest: str, path: Path) -> Manifest:
        before = _fingerprint(path)
        if [name for name, *_ in before] != sorted(FILES) or not all(stat.S_ISREG(mode) for _, mode, *_ in before):
            raise AdapterCorrupted(f"the directory of {ref} holds other files than were published: {_CORRUPTED}.")
        manifest = _manifest(ref, digest, (path / MANIFEST).read_bytes())
        if self._verified.get(digest) != before:
            for name, expected in manifest.files.items():
                with (path / name).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                        raise AdapterCorrupted(f"{name} of {ref} is not what was published: {_CORRUPTED}.")
            self._verified[digest] = before
        return manifest


def _manifest(ref: AdapterRef, digest: str, data: bytes | None) -> Manifest:
    """The manifest, which must be the digest's: it lists the other files' hashes, so it proves the whole."""
    with contextlib.suppress(InvalidAdapter):
        if data is not None:
            manifest = Manifest.parse(data)
            if set(manifest.files) | {MANIFEST} == set(FILES) and digest_of(data, manifest.files) == digest:
                return manifest
    raise AdapterCorrupted(f"{MANIFEST} of {ref} is not what was published: {_CORRUPTED}.")


def _fingerprint(path: Path) -> Fingerprint:
    """(name, mode, bytes, time of change in ns, inode) of each file: what differs once somebody has touched one."""
    found = []
    for entry in sorted(path.iterdir()):
        status = entry.lstat()
        found.append((entry.name, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(found)


def _object(digest: str) -> str:
    return f"objects/{digest.removeprefix('sha256:')}"


def _entry(folder: str, ref: AdapterRef) -> str:
    return f"{folder}/{ref.tenant}/{ref.name}/{ref.version}.json"


def _json(record: dict[str, str]) -> bytes:
    return json.dumps(record, sort_keys=True).encode() + b"\n"


def _now() -> str:
    return datetime.now(UTC).isoformat()


@contextlib.contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except ContractError:
        raise
    except OSError as error:
        # The text of an OSError names paths; its kind is enough for a caller, the cause is chained for the log.
        reason = error.strerror or type(error).__name__
        raise StoreUnavailable(f"the adapter store cannot be used now ({reason}): try again.") from error
