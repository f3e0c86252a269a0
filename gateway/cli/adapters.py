"""`gateway adapters`: register a version from the shared store, or upload a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.client import Json, TenantName, call, every, fail, segment, send, show, table

app = typer.Typer(help="Adapter versions that may be served.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_adapters(tenant: TenantName, as_json: Json = False) -> None:
    """Version, digest, rank, retired, the gate's verdict and its reason."""
    columns = ("ref", "digest", "rank", "retired", "verdict", "reason")
    table(every(f"/tenants/{segment(tenant)}/adapters"), columns, as_json=as_json)


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
    from adapters.package import tar_of, tar_size

    path, directory = f"/tenants/{segment(tenant)}/adapters", Path(what)
    if directory.is_dir():
        sizes = _files_of(directory)
        query = {"name": name or directory.resolve().name}
        answer = send(path, tar_of(sizes), size=tar_size(sizes), kind="application/x-tar", query=query)
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
    from adapters.package import FILES, sizes_of

    sizes = sizes_of(directory)
    missing = [name for name in FILES if name != MANIFEST and directory / name not in sizes]
    if missing:
        fail(f"{directory} is no PEFT adapter: it has no {' and no '.join(missing)}.")
    return sizes
