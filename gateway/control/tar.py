"""Reads the one kind of tar that an upload is: plain, holding the three files of an adapter version and nothing else.

Strict by being small. A general reader knows links, devices, sparse files, compression and extended names; this one
knows none of them, so none can do harm: a file's name is one of three words, its size is bounded before a byte is
written, and extended headers (macOS and Python write some, for times) are passed over.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from adapters.errors import InvalidAdapter
from adapters.package import FILES

_BLOCK = 512
_CHUNK = 1024 * 1024
_MAX_HEADERS = 64
_MAX_EXTENDED_BYTES = 64 * 1024
_FILE, _DIRECTORY, _EXTENDED = (b"0", b"\0"), (b"5",), (b"x", b"g")
_REMEDY = f"send a plain tar of {', '.join(FILES)}"


def unpack(archive: Path, into: Path, *, max_bytes: int) -> None:
    """Write the archive's files into the directory `into`, at most `max_bytes` in all.

    Raises `InvalidAdapter` for anything but a plain tar with just those files, each once, at its top.
    """
    left = max_bytes
    with archive.open("rb") as file:
        for _ in range(_MAX_HEADERS):
            header = file.read(_BLOCK)
            if not header.strip(b"\0"):
                return
            name, kind, size = _parse(header)
            if kind in _FILE:
                left -= size
                _copy(file, into, name, size, room=left)
            elif kind in _EXTENDED and size <= _MAX_EXTENDED_BYTES:
                file.seek(size, 1)
            elif kind not in _DIRECTORY or size:
                raise InvalidAdapter(f"the tar holds links or other special entries: {_REMEDY}.")
            file.seek(-size % _BLOCK, 1)  # entries are padded to whole blocks
    raise InvalidAdapter(f"the tar holds too many entries: {_REMEDY}.")


def _parse(header: bytes) -> tuple[str, bytes, int]:
    """Name, type and size of an entry."""
    try:
        told = int(header[148:156].strip(b" \0"), 8)
        size = int(header[124:136].strip(b" \0") or b"0", 8)
        name = header[:100].rstrip(b"\0").decode("ascii")
    except ValueError as error:  # UnicodeDecodeError is one too
        raise InvalidAdapter(f"this is no plain tar: {_REMEDY}.") from error
    if len(header) != _BLOCK or told != sum(header) - sum(header[148:156]) + 8 * ord(" ") or size < 0:
        raise InvalidAdapter(f"this is no plain tar: {_REMEDY}.")
    return name.removeprefix("./"), header[156:157], size


def _copy(file: BinaryIO, into: Path, name: str, size: int, *, room: int) -> None:
    if name not in FILES or (into / name).exists():
        raise InvalidAdapter(f"{name[:80]!r} does not belong into the tar, or not twice: {_REMEDY}.")
    if room < 0:
        raise InvalidAdapter("the tar's files are too large: retrain with a lower rank or fewer target modules.")
    with (into / name).open("xb") as target:
        while size:
            data = file.read(min(size, _CHUNK))
            if not data:
                raise InvalidAdapter(f"the tar ends in the middle of {name}: send it again.")
            size -= target.write(data)
