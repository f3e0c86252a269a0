"""`gateway experiments`: compare the variants of an alias."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.cli.aliases import VARIANT, VARIANT_HELP, AliasName, variants_of
from gateway.cli.client import Json, TenantName, call, cell, every, segment, show, table

app = typer.Typer(help="Comparisons on live traffic.", no_args_is_help=True, rich_markup_mode=None)

ExperimentId = Annotated[str, typer.Argument(metavar="ID")]
HEADING = ("variant", "ref", "requests", "share", "users", "judged", "mean", "low", "high", "difference", "verdict")


@app.command("start")
def start(
    tenant: TenantName,
    alias: AliasName,
    name: Annotated[str | None, typer.Option(help="What is being asked; the alias if left out.")] = None,
    metric: Annotated[str | None, typer.Option(help="What decides it.")] = None,
    variant: Annotated[list[str] | None, typer.Option(metavar=VARIANT, help=VARIANT_HELP)] = None,
    as_json: Json = False,
) -> None:
    """Start; prints the experiment's id."""
    body: dict[str, Any] = {"alias": alias, "name": name or alias}
    if metric:
        body["metric"] = metric
    if variant:
        body["variants"] = variants_of(variant)
    answer = call("POST", f"/tenants/{segment(tenant)}/experiments", body)
    show(answer, as_json=as_json, text=answer["id"])


@app.command("list")
def list_experiments(tenant: TenantName, as_json: Json = False) -> None:
    """Id, alias, name, status, started; the newest first."""
    rows = every(f"/tenants/{segment(tenant)}/experiments")
    table(rows, ("id", "alias", "name", "status", "started_at"), as_json=as_json)


@app.command("status")
def status(
    experiment: ExperimentId,
    metric: Annotated[str | None, typer.Option(help="The experiment's own if left out.")] = None,
    as_json: Json = False,
) -> None:
    """What it has shown so far: a line a variant, with 95 % intervals that hold however often one looks."""
    found = call("GET", f"/experiments/{segment(experiment)}/results", query={"metric": metric})
    lines = ["\t".join(HEADING), *("\t".join(map(cell, _cells(arm))) for arm in found["variants"])]
    show(found, as_json=as_json, text="\n".join(lines))


@app.command("stop")
def stop(experiment: ExperimentId, as_json: Json = False) -> None:
    """Stop; the alias keeps its variants. Prints the id."""
    answer = call("POST", f"/experiments/{segment(experiment)}/stop")
    show(answer, as_json=as_json, text=answer["id"])


def _cells(arm: dict[str, Any]) -> list[Any]:
    low, high = arm["interval"] or (None, None)
    gap = arm["difference"]
    verdict = None if gap is None else "differs" if gap["conclusive"] else "open"
    known = (arm["name"], arm["ref"], arm["inferences"], arm["share"], arm["units"], arm["feedback"], arm["mean"])
    return [*known, low, high, gap["value"] if gap else None, verdict]
