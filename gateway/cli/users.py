"""`gateway users` and `gateway lineage`: what is kept of one user, and which versions learnt from what."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.client import Json, TenantName, call, cell, segment, show, stream, table, write_out

app = typer.Typer(help="Users of a tenant's clients.", no_args_is_help=True, rich_markup_mode=None)

TargetingKey = Annotated[str | None, typer.Option("--user", metavar="KEY", help="The user's targeting key.")]
Unit = Annotated[str | None, typer.Option(metavar="HASH", help="Its hash, as exports show it.")]


@app.command("erase")
def erase(tenant: TenantName, user: TargetingKey = None, unit: Unit = None, as_json: Json = False) -> None:
    """Erase a user's prompts, answers and feedback for ever; prints how much it was, and what to train again."""
    if (user is None) == (unit is None):
        raise typer.BadParameter("give --user or --unit.")
    found = call("DELETE", f"/tenants/{segment(tenant)}/users", query={"targeting_key": user, "unit": unit})
    known = {**found["erased"], "retrain": found["retrain"]}
    show(found, as_json=as_json, text="\n".join(f"{name}\t{cell(value)}" for name, value in known.items()))


def lineage(
    tenant: TenantName,
    ref: Annotated[str | None, typer.Argument(metavar="[REF]", help="support@1: the rows that made it.")] = None,
    user: TargetingKey = None,
    unit: Unit = None,
    inference: Annotated[str | None, typer.Option(metavar="ID", help="An answer.")] = None,
    feedback: Annotated[str | None, typer.Option(metavar="ID", help="One feedback.")] = None,
    as_json: Json = False,
) -> None:
    """Versions that learnt from a user, an answer or a feedback: ref, rows, retired, the aliases that serve it.

    With REF: the rows that made that version, one JSON object a line.
    """
    path = f"/tenants/{segment(tenant)}"
    if sum(one is not None for one in (ref, user, unit, inference, feedback)) != 1:
        raise typer.BadParameter("give one of REF, --user, --unit, --inference and --feedback.")
    if ref is not None:
        name, _, version = ref.removeprefix(f"{tenant}/").partition("@")
        write_out(stream(f"{path}/adapters/{segment(name)}/{segment(version)}/lineage", query={}), to=None)
        return
    query = {"targeting_key": user, "unit": unit, "inference_id": inference, "feedback_id": feedback}
    found = call("GET", f"{path}/lineage", query=query)["data"]
    table(found, ("ref", "rows", "retired", "serving"), as_json=as_json)
