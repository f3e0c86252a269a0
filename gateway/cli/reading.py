"""`gateway export`, `gateway audit`, `gateway engine`: looking, changing nothing."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from gateway.cli.client import Json, call, cell, show, stream, table, write_out


def export(
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    alias: Annotated[str | None, typer.Option(help="Only this alias's traffic.")] = None,
    metric: Annotated[str | None, typer.Option(help="Only feedback on this metric.")] = None,
    since: Annotated[str | None, typer.Option(metavar="MOMENT", help="Such as 2026-01-01T00:00:00Z.")] = None,
    form: Annotated[
        Literal["examples", "judged"], typer.Option("--format", help="Each answer's best label, or all that was said.")
    ] = "examples",
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="Instead of printing.")] = None,
) -> None:
    """Training rows from judged traffic, one JSON object a line."""
    query = {"tenant": tenant, "alias": alias, "metric": metric, "since": since, "format": form}
    write_out(stream("/export", query=query), to=output)


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: Json = False,
) -> None:
    """Who changed what, the newest first."""
    rows = call("GET", "/audit", query={"tenant": tenant, "limit": limit})["data"]
    table(rows, ("at", "actor", "tenant", "action", "subject"), as_json=as_json)


def engine(as_json: Json = False) -> None:
    """The base model, the slots, and what is resident."""
    found = call("GET", "/engine")
    show(found, as_json=as_json, text="\n".join(f"{name}\t{cell(value)}" for name, value in found.items()))
