"""The options for limits, which tenants and keys have in common: a number, or `none` to remove the limit."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def _option(what: str) -> Any:
    return typer.Option(metavar="N|none", help=f"{what}; none removes the limit.")


RequestsPerMinute = Annotated[str | None, _option("Requests a minute")]
TokensPerMinute = Annotated[str | None, _option("Tokens a minute, of prompts and answers")]
ConcurrentRequests = Annotated[str | None, _option("Requests at one time")]
TokensPerDay = Annotated[str | None, _option("Tokens on one UTC day")]
TokensPerMonth = Annotated[str | None, _option("Tokens in one UTC month")]


def limited(**options: str | None) -> dict[str, Any]:
    """The part of a body that says which limits to set and to remove; empty where none was given."""
    limits = {name: _number(name, text) for name, text in options.items() if text is not None}
    return {"limits": limits} if limits else {}


def _number(name: str, text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter("give a whole number, or none", param_hint=f"--{name.replace('_', '-')}")
    return int(text[:20])
