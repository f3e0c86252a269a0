"""`gateway experiments verdict` and `gateway experiments power`: what an experiment comes to, and what it will take."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gateway.cli.client import Json, call, cell, segment, show

HEADING = ("metric", "role", "variant", "value", "control", "difference", "low", "high", "status")


def verdict(experiment: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """The verdict as of now in a sentence, and a line for each metric of each candidate."""
    found = call("GET", f"/experiments/{segment(experiment)}/verdict")
    lines = [found["sentence"], "", "\t".join(HEADING)]
    lines += ["\t".join(cell(figure[name]) for name in HEADING) for figure in found["figures"]]
    users = ", ".join(f"{name} {count}" for name, count in found["exposed"].items())
    lines += ["", f"users: {users or 'none yet'} (sample ratio p = {cell(found['sample_ratio']['p'])})"]
    lines.append(f"alpha {found['alpha']}, planned units {found['planned_units']}, burn-in {found['burn_in']} an arm")
    show(found, as_json=as_json, text="\n".join(lines))


def power(
    base: Annotated[float, typer.Option(help="The control's mean: a rate, or with --sd any number.")],
    effect: Annotated[float, typer.Option(help="The smallest difference worth knowing.")],
    relative: Annotated[bool, typer.Option("--relative", help="The effect is a share of the base.")] = False,
    sd: Annotated[float | None, typer.Option(help="Of single measurements; left out for a rate.")] = None,
    alpha: Annotated[float, typer.Option(help="The chance of a wrong verdict.")] = 0.05,
    chance: Annotated[float, typer.Option("--power", help="The chance to find the effect.")] = 0.8,
    comparisons: Annotated[int, typer.Option(help="Goals times candidates.")] = 1,
    per_unit: Annotated[float, typer.Option(help="How often a user is measured.")] = 1.0,
    correlation: Annotated[float, typer.Option(help="How alike one user's measurements are.")] = 0.0,
    coverage: Annotated[float, typer.Option(help="The share of users that is measured at all.")] = 1.0,
    per_day: Annotated[float | None, typer.Option(help="Users a day.")] = None,
    as_json: Json = False,
) -> None:
    """How many users it takes to find a difference."""
    question: dict[str, Any] = {
        "base": base,
        "effect": effect,
        "relative": relative,
        "sd": sd,
        "alpha": alpha,
        "power": chance,
        "comparisons": comparisons,
        "per_unit": per_unit,
        "correlation": correlation,
        "coverage": coverage,
        "units_per_day": per_day,
    }
    needed = call("POST", "/power", question)

    def days(name: str) -> str:
        return "" if needed[name] is None else f", {needed[name]:.1f} days"

    text = (
        f"{needed['units']} users{days('days')}: then {chance:.0%} of such experiments have their verdict,"
        f" looked at all the time.\nHalf have it after {needed['typical_units']}{days('typical_days')}."
        f" A test with one look takes {needed['fixed_units']}{days('fixed_days')}."
        f"\nFor the plan: planned_units {needed['planned_units']}."
    )
    show(needed, as_json=as_json, text=text)
