"""Where a store's files lie: a plain directory, or whatever fsspec reaches (S3, GCS, memory). Bytes and names only.

Two promises make versions immutable and crashes harmless, and each place keeps them in its own way:
an object appears whole or not at all (or is not yet referred to), and `create` succeeds for exactly one caller.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from adapters.errors import StoreUnavailable
from adapters.package import FILES, fsync_directory

_ABANDONED_SECONDS = 24 * 3600
"""Staging older than this was left by a process that was killed."""


class Place(Protocol):
    """Paths are relative, with slashes. Anything that goes wrong with the medium is an `OSError`."""

    def staging(self) -> contextlib.AbstractContextManager[Path]:
        """A new empty local directory, from which `keep` is cheap; removed afterwards."""
        ...

    def keep(self, path: str, staged: Path) -> None:
        """Put the files of a finished directory under `path`; nothing to do if they are there already."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file that must not exist yet. False if it does; whole or absent after a crash."""
        ...

    def read(self, path: str) -> bytes | None:
        """A small file, `None` if it does not exist."""
        ...

    def names(self, path: str) -> list[str]:
        """The names in a folder; none if it does not exist."""
        ...

    def local(self, path: str, cache: Callable[[], Path], check: Callable[[Path], object]) -> Path:
        """A local directory with the files of `path`. A remote place copies them into `cache()` once, and keeps the
        copy only if `check` accepts it."""
        ...


def place_at(url: str) -> Place:
    """The place an fsspec URL or a plain path names. Raises `StoreUnavailable` when nothing here can reach it."""
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        scheme = url.partition(":")[0][:20]
        raise StoreUnavailable(f"nothing installed here reaches {scheme}: stores ({error}).") from error
    if isinstance(filesystem, LocalFileSystem):
        return Directory(Path(root))
    return Bucket(filesystem, root)


class Directory:
    """A directory of this machine (or a shared file system with atomic rename and hard links)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        with _staging(self._root / "staging") as stage:
            yield stage

    def keep(self, path: str, staged: Path) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        _rename_in(staged, target)
        self._settle(target.parent)

    def create(self, path: str, data: bytes) -> bool:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.staging() as stage:
            draft = stage / "draft"
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.chmod(0o444)
            # A link is the one call that is both exclusive and atomic in content: rename would overwrite, O_EXCL
            # would show an empty file to whoever looks before the bytes are written.
            try:
                os.link(draft, target)
            except FileExistsError:
                return False
        self._settle(target.parent)
        return True

    def read(self, path: str) -> bytes | None:
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError:
            return None

    def names(self, path: str) -> list[str]:
        try:
            return [entry.name for entry in (self._root / path).iterdir()]
        except FileNotFoundError:
            return []

    def local(self, path: str, cache: Callable[[], Path], check: Callable[[Path], object]) -> Path:
        return self._root / path

    def _settle(self, directory: Path) -> None:
        """Every entry on the way down to `directory` survives a power cut, whoever made it."""
        while directory.is_relative_to(self._root):
            fsync_directory(directory)
            directory = directory.parent
        fsync_directory(directory)


class Bucket:
    """Any other fsspec file system. `create` is as exclusive as its `pipe_file(mode="create")`: on S3, GCS and Azure a
    conditional write, elsewhere a look before the write."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self._files = filesystem
        self._root = root.rstrip("/")
        self._turns: dict[str, Lock] = {}  # by path: one copy at a time

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="tuneloop-") as stage:
            yield Path(stage)

    def keep(self, path: str, staged: Path) -> None:
        # Not atomic as a whole, and need not be: nothing refers to the object yet. A half-written one is written over.
        self._files.makedirs(self._at(path), exist_ok=True)
        self._files.invalidate_cache()
        for name in FILES:
            at = f"{self._at(path)}/{name}"
            if not self._has(at, (staged / name).stat().st_size):
                self._files.put_file(str(staged / name), at)

    def create(self, path: str, data: bytes) -> bool:
        at = self._at(path)
        self._files.makedirs(at.rpartition("/")[0], exist_ok=True)
        try:
            self._files.pipe_file(at, data, mode="create")
        except FileExistsError:
            return False
        return True

    def read(self, path: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(self._at(path)))
        except FileNotFoundError:
            return None

    def names(self, path: str) -> list[str]:
        self._files.invalidate_cache()
        try:
            listed = self._files.ls(self._at(path), detail=False)
        except FileNotFoundError:
            return []
        return [str(name).rstrip("/").rpartition("/")[2] for name in listed]

    def local(self, path: str, cache: Callable[[], Path], check: Callable[[Path], object]) -> Path:
        home = cache()
        target = home / path
        with self._turns.setdefault(path, Lock()):  # whoever comes meanwhile waits for the one copy
            if not target.is_dir():
                self._copy(path, home, target, check)
        return target

    def _copy(self, path: str, home: Path, target: Path, check: Callable[[Path], object]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _staging(home / "staging") as stage:
            draft = stage / "draft"
            draft.mkdir()
            for name in FILES:
                self._files.get_file(f"{self._at(path)}/{name}", str(draft / name))
                (draft / name).chmod(0o444)
            check(draft)
            _rename_in(draft, target)

    def _has(self, at: str, size: int) -> bool:
        try:
            return bool(self._files.info(at)["size"] == size)
        except FileNotFoundError:
            return False

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


@contextlib.contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    stage = parent / uuid.uuid4().hex
    stage.mkdir()
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _sweep(parent: Path) -> None:
    for entry in os.scandir(parent):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(entry.path, ignore_errors=True)


def _rename_in(draft: Path, target: Path) -> None:
    try:
        draft.rename(target)
    except OSError:
        if not target.is_dir():  # renaming onto a directory that is not empty fails: somebody was first
            raise
