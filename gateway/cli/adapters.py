"""`gateway adapters`: register a version from the shared store, or upload a directory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.client import Json, TenantName, call, every, fail, segment, send, show, table

app = typer.Typer(help="Adapter versions that may be served.", no_args_is_help=True, rich_markup_mode=None)

CHUNK = 1024 * 1024


@app.command("list")
def list_adapters(tenant: TenantName, as_json: Json = False) -> None:
    """Version, digest, rank, retired."""
    table(every(f"/tenants/{segment(tenant)}/adapters"), ("ref", "digest", "rank", "retired"), as_json=as_json)


@app.command("register")
def register(
    tenant: TenantName,
    what: Annotated[
        str, typer.Argument(metavar="REF|DIRECTORY", help="support@1, or the directory of a PEFT adapter.")
    ],
    name: Annotated[str | None, typer.Option(help="Of an uploaded adapter; the directory's name if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Let a version be served; prints its ref."""
    path, directory = f"/tenants/{segment(tenant)}/adapters", Path(what)
    if directory.is_dir():
        sizes = _files_of(directory)
        query = {"name": name or directory.resolve().name}
        answer = send(path, _tar(sizes), size=_tar_size(sizes), kind="application/x-tar", query=query)
    else:
        answer = call("POST", path, {"ref": what})
    show(answer, as_json=as_json, text=answer["ref"])


@app.command("retire")
def retire(
    tenant: TenantName, ref: Annotated[str, typer.Argument(metavar="REF", help="support@1")], as_json: Json = False
) -> None:
    """Never serve a version again; prints its ref."""
    name, at, version = ref.removeprefix(f"{tenant}/").partition("@")
    if not at:
        fail(f"{ref} is no adapter version: write it as NAME@VERSION, such as support@1.")
    answer = call("POST", f"/tenants/{segment(tenant)}/adapters/{segment(name)}/{segment(version)}/retire")
    show(answer, as_json=as_json, text=answer["ref"])


def _files_of(directory: Path) -> dict[Path, int]:
    """The files of an adapter, with their sizes in bytes; another trainer's has no manifest."""
    from adapters.manifest import MANIFEST
    from adapters.package import FILES

    found = [directory / name for name in FILES if (directory / name).is_file()]
    missing = [name for name in FILES if name != MANIFEST and directory / name not in found]
    if missing:
        fail(f"{directory} is no PEFT adapter: it has no {' and no '.join(missing)}.")
    return {file: file.stat().st_size for file in found}


def _tar(sizes: dict[Path, int]) -> Iterator[bytes]:
    """A plain tar, a piece at a time: weights of any size go through one megabyte of memory."""
    for path, size in sizes.items():
        entry = tarfile.TarInfo(path.name)
        entry.size = size
        yield entry.tobuf(tarfile.USTAR_FORMAT)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _tar_size(sizes: dict[Path, int]) -> int:
    """Bytes of `_tar`."""
    block = tarfile.BLOCKSIZE
    return sum(block + size + -size % block for size in sizes.values()) + 2 * block
