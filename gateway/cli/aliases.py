"""`gateway aliases`: what a client's `model` means, and moving it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import typer

from gateway.cli.client import Json, TenantName, call, cell, every, segment, show

app = typer.Typer(help="The names that clients use as `model`.", no_args_is_help=True, rich_markup_mode=None)

AliasName = Annotated[str, typer.Argument(metavar="ALIAS")]
VARIANT = "NAME=WEIGHT:REF"
VARIANT_HELP = "Such as tuned=1:support@2 or plain=1:base; again for more."
HEADING = ("ref", "requests", "errors", "rate", "pairs", "p50 ms", "was", "p95 ms", "was", "tokens", "was")
_COMPARED = (
    *("ref", "requests", "errors", "error_rate", "pairs"),
    *("p50_ms", "original_p50_ms", "p95_ms", "original_p95_ms", "output_tokens", "original_output_tokens"),
)


@app.command("set")
def set_alias(
    tenant: TenantName,
    alias: AliasName,
    variant: Annotated[list[str], typer.Option(metavar=VARIANT, help=VARIANT_HELP)],
    fallback: Annotated[
        Literal["error", "previous", "base"] | None, typer.Option(help="If a version cannot be served.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Set the variants, once every worker holds their versions; prints the alias."""
    body = {"variants": variants_of(variant), **({"fallback": fallback} if fallback else {})}
    _show(call("PUT", _path(tenant, alias), body), as_json=as_json)


@app.command("show")
def show_alias(tenant: TenantName, alias: AliasName, as_json: Json = False) -> None:
    """Name, revision, variants, fallback, running experiment, shadow."""
    _show(call("GET", _path(tenant, alias)), as_json=as_json)


@app.command("list")
def list_aliases(tenant: TenantName, as_json: Json = False) -> None:
    """Name, revision, variants, fallback, running experiment, shadow; one alias a line."""
    rows = every(f"/tenants/{segment(tenant)}/aliases")
    if as_json or rows:
        show(rows, as_json=as_json, text="\n".join(map(_line, rows)))


@app.command("promote")
def promote(
    tenant: TenantName,
    alias: AliasName,
    ref: Annotated[str, typer.Argument(metavar="REF", help="support@2")],
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="Only this variant's share.")] = None,
    as_json: Json = False,
) -> None:
    """Move the alias (or one variant) to a version; prints the alias."""
    body = {"ref": ref, **({"variant": variant} if variant else {})}
    _show(call("POST", f"{_path(tenant, alias)}/promote", body), as_json=as_json)


@app.command("rollback")
def rollback(tenant: TenantName, alias: AliasName, as_json: Json = False) -> None:
    """Go back to the variants before the last change; prints the alias."""
    _show(call("POST", f"{_path(tenant, alias)}/rollback"), as_json=as_json)


@app.command("shadow")
def shadow(
    tenant: TenantName,
    alias: AliasName,
    ref: Annotated[str | None, typer.Argument(metavar="[REF]", help="The candidate: support@3.")] = None,
    share: Annotated[float | None, typer.Option(min=0, max=1, help="Of the requests; 0.1 is one in ten.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Mirror nothing any more.")] = False,
    as_json: Json = False,
) -> None:
    """Mirror a share of the requests to REF, whose answers nobody gets; prints the alias.

    Without REF: how each candidate did beside the answers that clients got to the same requests, a line each.
    """
    path = f"{_path(tenant, alias)}/shadow"
    if (ref is None) != (share is None) or (off and ref is not None):
        raise typer.BadParameter("give REF and --share, or --off, or none of them to see how the candidates did.")
    if off:
        _show(call("DELETE", path), as_json=as_json)
    elif ref is not None:
        _show(call("PUT", path, {"ref": ref, "share": share}), as_json=as_json)
    else:
        found = call("GET", path)
        rows = ["\t".join(cell(one[name]) for name in _COMPARED) for one in found["candidates"]]
        show(found, as_json=as_json, text="\n".join(["\t".join(HEADING), *rows]))


def variants_of(texts: list[str]) -> list[dict[str, Any]]:
    """Variants as a person writes them. Ends the command with status 2 for one that cannot be read."""
    return [_variant(text) for text in texts]


def _variant(text: str) -> dict[str, Any]:
    name, equals, rest = text.partition("=")
    weight, colon, ref = rest.partition(":")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not (name and equals and colon and ref and math.isfinite(number)):
        raise typer.BadParameter(f"{text!r} is not {VARIANT}, such as tuned=1:support@2 or plain=1:base.")
    return {"name": name, "weight": number, "ref": ref}


def _path(tenant: str, alias: str) -> str:
    return f"/tenants/{segment(tenant)}/aliases/{segment(alias)}"


def _show(alias: dict[str, Any], *, as_json: bool) -> None:
    show(alias, as_json=as_json, text=_line(alias))


def _line(alias: dict[str, Any]) -> str:
    variants = " ".join(f"{v['name']}={v['weight']:g}:{v['ref']}" for v in alias["variants"])
    known = (alias["name"], alias["revision"], variants, alias["fallback"], alias["experiment"])
    mirror = alias["shadow"]
    return "\t".join(map(cell, (*known, f"{mirror['share']:g}:{mirror['ref']}" if mirror else None)))
