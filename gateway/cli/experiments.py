"""`gateway experiments`: compare the variants of an alias."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gateway.cli.aliases import VARIANT, VARIANT_HELP, AliasName, variants_of
from gateway.cli.client import Json, TenantName, call, cell, every, fail, segment, show, table
from gateway.experiment import By

app = typer.Typer(help="Comparisons on live traffic.", no_args_is_help=True, rich_markup_mode=None)

ExperimentId = Annotated[str, typer.Argument(metavar="ID")]
HEADING = ("variant", "ref", "requests", "share", "users", "judged", "mean", "low", "high", "difference", "verdict")


LINE = ("id", "alias", "name", "status", "started_at", "stage", "coverage_now")
Whys = Annotated[str, typer.Option("--why", help="For the audit log.")]


@app.command("start")
def start(
    tenant: TenantName,
    alias: AliasName,
    name: Annotated[str | None, typer.Option(help="What is being asked; the alias if left out.")] = None,
    metric: Annotated[str | None, typer.Option(help="What decides it.")] = None,
    variant: Annotated[
        list[str] | None, typer.Option(metavar=VARIANT, help=f"{VARIANT_HELP} The first is the control.")
    ] = None,
    candidate: Annotated[
        list[str] | None, typer.Option(metavar=VARIANT, help="Against what the alias serves now; again for more.")
    ] = None,
    hypothesis: Annotated[str | None, typer.Option(help="What you expect, in a sentence.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whose it is.")] = None,
    stage: Annotated[
        Literal["shadow", "canary", "experiment"] | None, typer.Option(help="Where it begins (experiment).")
    ] = None,
    shadow_share: Annotated[float | None, typer.Option(help="Of the requests that are mirrored (0.1).")] = None,
    canary: Annotated[float | None, typer.Option(help="Share of the users in the canary (0.05).")] = None,
    coverage: Annotated[float | None, typer.Option(help="Share of the users in the experiment (1).")] = None,
    unit: Annotated[
        Literal["targeting_key", "episode", "inference"] | None, typer.Option(help="What is dealt out (targeting_key).")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="No user is in two experiments of a layer.")] = None,
    guardrail: Annotated[
        list[str] | None, typer.Option(metavar="METRIC=MARGIN", help="Such as error_rate=0.02 or latency=10%.")
    ] = None,
    secondary: Annotated[list[str] | None, typer.Option(metavar="METRIC", help="Again for more.")] = None,
    ship: Annotated[By | None, typer.Option(help="Who promotes a winner (hand).")] = None,
    widen: Annotated[By | None, typer.Option(help="Who ends the canary (hand).")] = None,
    plan: Annotated[str | None, typer.Option(metavar="FILE", help="The whole plan as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Start; prints the experiment's id."""
    # long because: an experiment has many sides, and each is an option.
    fixed = _plan(plan, guardrail, {"secondaries": secondary or None, "ship": ship, "widen": widen})
    options = {
        "metric": metric,
        "variants": variants_of(variant) if variant else None,
        "candidates": variants_of(candidate) if candidate else None,
        "hypothesis": hypothesis,
        "owner": owner,
        "stage": stage,
        "shadow_share": shadow_share,
        "canary_coverage": canary,
        "coverage": coverage,
        "unit": unit,
        "layer": layer,
        "plan": fixed or None,
    }
    body = {"alias": alias, "name": name or alias, **{key: one for key, one in options.items() if one is not None}}
    answer = call("POST", f"/tenants/{segment(tenant)}/experiments", body)
    show(answer, as_json=as_json, text=answer["id"])


@app.command("list")
def list_experiments(tenant: TenantName, as_json: Json = False) -> None:
    """Id, alias, name, status, started, stage, share of the users now; the newest first."""
    table(every(f"/tenants/{segment(tenant)}/experiments"), LINE, as_json=as_json)


@app.command("show")
def show_experiment(experiment: ExperimentId, as_json: Json = False) -> None:
    """All that was fixed at its start, and where it is now."""
    found = call("GET", f"/experiments/{segment(experiment)}")
    arms = " ".join(f"{arm['name']}={arm['weight']:g}:{arm['ref']}" for arm in found["variants"])
    plan = {f"plan.{name}": value for name, value in found["plan"].items()}
    rows = {**found, "variants": arms, "epochs": len(found["epochs"]), **plan}
    lines = [f"{name}\t{cell(value)}" for name, value in rows.items() if name not in ("object", "plan")]
    show(found, as_json=as_json, text="\n".join(lines))


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


@app.command("advance")
def advance(experiment: ExperimentId, why: Whys, as_json: Json = False) -> None:
    """Go on from shadow to canary, or from canary to experiment; prints its line."""
    _step(experiment, "advance", {"why": why}, as_json=as_json)


@app.command("pause")
def pause(experiment: ExperimentId, why: Whys = "", as_json: Json = False) -> None:
    """Everybody gets the control, and nothing is counted; prints its line."""
    _step(experiment, "pause", None, why=why or None, as_json=as_json)


@app.command("resume")
def resume(experiment: ExperimentId, why: Whys = "", as_json: Json = False) -> None:
    """Everybody gets back to their variant; prints its line."""
    _step(experiment, "resume", None, why=why or None, as_json=as_json)


@app.command("promote")
def promote(
    experiment: ExperimentId,
    variant: Annotated[str, typer.Argument(metavar="VARIANT")],
    why: Whys,
    as_json: Json = False,
) -> None:
    """End it: the alias serves this variant alone; prints its line."""
    _step(experiment, "promote", {"variant": variant, "why": why}, as_json=as_json)


@app.command("rollback")
def rollback(experiment: ExperimentId, why: Whys, as_json: Json = False) -> None:
    """End it: the alias serves the control alone; prints its line."""
    _step(experiment, "rollback", {"why": why}, as_json=as_json)


@app.command("weights")
def weights(
    experiment: ExperimentId,
    weight: Annotated[list[str], typer.Argument(metavar="NAME=WEIGHT...", help="Of all variants: base=1 tuned=3.")],
    why: Whys,
    as_json: Json = False,
) -> None:
    """Deal users out by other weights, moving as few as possible; prints its line."""
    _step(experiment, "weights", {"weights": dict(map(_weight, weight)), "why": why}, as_json=as_json)


@app.command("coverage")
def coverage(
    experiment: ExperimentId,
    share: Annotated[float, typer.Argument(metavar="SHARE", help="0.5 is half of the users.")],
    why: Whys = "",
    as_json: Json = False,
) -> None:
    """Let more users take part; prints its line."""
    _step(experiment, "coverage", {"coverage": share, "why": why}, as_json=as_json)


@app.command("override")
def override(
    experiment: ExperimentId,
    targeting_key: Annotated[str, typer.Argument(metavar="USER", help="The tester's targeting key.")],
    variant: Annotated[str | None, typer.Argument(metavar="[VARIANT]", help="Left out: as everybody again.")] = None,
    as_json: Json = False,
) -> None:
    """Give a tester a variant, outside of the analysis; prints its line."""
    _step(experiment, "overrides", {"targeting_key": targeting_key, "variant": variant}, as_json=as_json)


@app.command("stop")
def stop(experiment: ExperimentId, why: Whys = "", as_json: Json = False) -> None:
    """End it without a judgement: the alias serves the control alone. Prints the id."""
    answer = call("POST", f"/experiments/{segment(experiment)}/stop", query={"why": why or None})
    show(answer, as_json=as_json, text=answer["id"])


@app.command("rebuild")
def rebuild(experiment: ExperimentId, as_json: Json = False) -> None:
    """Have all its figures worked out anew from the raw rows, in the background. Prints the id."""
    _step(experiment, "rebuild", None, as_json=as_json)


def _step(experiment: str, step: str, body: Any, *, why: str | None = None, as_json: bool) -> None:
    answer = call("POST", f"/experiments/{segment(experiment)}/{step}", body, query={"why": why})
    show(answer, as_json=as_json, text="\t".join(cell(answer[name]) for name in LINE))


def _plan(file: str | None, guardrails: list[str] | None, options: dict[str, Any]) -> dict[str, Any]:
    """The file's plan, with what was said beside it. Ends the command with one sentence for a file that is none."""
    found: Any = {}
    if file is not None:
        try:
            found = json.loads(Path(file).read_bytes())
        except (OSError, ValueError) as error:
            fail(f"Cannot read a plan from {file}: {getattr(error, 'strerror', None) or error}.")
        if not isinstance(found, dict):
            fail(f"The plan in {file} is no JSON object.")
    if guardrails:
        options = {**options, "guardrails": [_guardrail(text) for text in guardrails]}
    plan: dict[str, Any] = found
    return plan | {name: value for name, value in options.items() if value is not None}


def _guardrail(text: str) -> dict[str, Any]:
    name, _, margin = text.partition("=")
    relative = margin.endswith("%")
    number = _number(margin.removesuffix("%"))
    if not name or number is None:
        raise typer.BadParameter(f"{text!r} is not METRIC=MARGIN, such as error_rate=0.02 or latency=10%.")
    return {"metric": name, "margin": number / 100 if relative else number, "relative": relative}


def _weight(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    number = _number(weight)
    if not name or number is None:
        raise typer.BadParameter(f"{text!r} is not NAME=WEIGHT, such as tuned=3.")
    return name, number


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _cells(arm: dict[str, Any]) -> list[Any]:
    low, high = arm["interval"] or (None, None)
    gap = arm["difference"]
    verdict = None if gap is None else "differs" if gap["conclusive"] else "open"
    known = (arm["name"], arm["ref"], arm["inferences"], arm["share"], arm["units"], arm["feedback"], arm["mean"])
    return [*known, low, high, gap["value"] if gap else None, verdict]
