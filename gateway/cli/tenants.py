"""`gateway tenants`, `gateway keys`, `gateway metrics`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from gateway.cli.client import Json, TenantName, call, every, segment, show, table
from gateway.cli.limits import (
    ConcurrentRequests,
    RequestsPerMinute,
    TokensPerDay,
    TokensPerMinute,
    TokensPerMonth,
    limited,
)
from gateway.domain import Scope

tenants = typer.Typer(help="Who shares the base model.", no_args_is_help=True, rich_markup_mode=None)
keys = typer.Typer(help="API keys of a tenant.", no_args_is_help=True, rich_markup_mode=None)
metrics = typer.Typer(help="What feedback may be about.", no_args_is_help=True, rich_markup_mode=None)

Kind = Literal["boolean", "float", "count", "ratio", "comment", "demonstration", "preference"]
StoreContent = Annotated[
    bool | None, typer.Option("--store-content/--no-store-content", help="Keep prompts and answers, to learn from.")
]
AllowPinning = Annotated[
    bool | None, typer.Option("--allow-pinning/--no-allow-pinning", help="Clients may name versions and variants.")
]
Weight = Annotated[float | None, typer.Option(help="Its share of a full engine, relative to the others' (1).")]


@tenants.command("create")
def create_tenant(
    name: TenantName,
    store_content: StoreContent = None,
    allow_pinning: AllowPinning = None,
    weight: Weight = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    tokens_per_day: TokensPerDay = None,
    tokens_per_month: TokensPerMonth = None,
    as_json: Json = False,
) -> None:
    """Create a tenant; prints its name."""
    body = {"name": name, **_given(store_content=store_content, allow_pinning=allow_pinning, weight=weight)}
    body |= limited(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent_requests=concurrent_requests,
        tokens_per_day=tokens_per_day,
        tokens_per_month=tokens_per_month,
    )
    answer = call("POST", "/tenants", body)
    show(answer, as_json=as_json, text=answer["name"])


@tenants.command("list")
def list_tenants(as_json: Json = False) -> None:
    """Name, content kept, pinning allowed, weight, limits."""
    table(every("/tenants"), ("name", "store_content", "allow_pinning", "weight", "limits"), as_json=as_json)


@tenants.command("update")
def update_tenant(
    name: TenantName,
    store_content: StoreContent = None,
    allow_pinning: AllowPinning = None,
    weight: Weight = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    tokens_per_day: TokensPerDay = None,
    tokens_per_month: TokensPerMonth = None,
    as_json: Json = False,
) -> None:
    """Change what a tenant allows and may use; prints its name."""
    body = _given(store_content=store_content, allow_pinning=allow_pinning, weight=weight)
    body |= limited(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent_requests=concurrent_requests,
        tokens_per_day=tokens_per_day,
        tokens_per_month=tokens_per_month,
    )
    answer = call("PATCH", f"/tenants/{segment(name)}", body)
    show(answer, as_json=as_json, text=answer["name"])


@keys.command("create")
def create_key(
    tenant: TenantName,
    scope: Annotated[
        list[Scope] | None, typer.Option(help="Again for more; inference and feedback if left out.")
    ] = None,
    expires_at: Annotated[str | None, typer.Option(metavar="MOMENT", help="Such as 2027-01-01T00:00:00Z.")] = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    tokens_per_day: TokensPerDay = None,
    tokens_per_month: TokensPerMonth = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it: it is shown this once."""
    body = _given(scopes=scope or None, expires_at=expires_at)
    body |= limited(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent_requests=concurrent_requests,
        tokens_per_day=tokens_per_day,
        tokens_per_month=tokens_per_month,
    )
    answer = call("POST", f"/tenants/{segment(tenant)}/keys", body)
    show(answer, as_json=as_json, text=answer["key"])


@keys.command("limit")
def limit_key(
    tenant: TenantName,
    key_id: Annotated[str, typer.Argument(metavar="ID")],
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    tokens_per_day: TokensPerDay = None,
    tokens_per_month: TokensPerMonth = None,
    as_json: Json = False,
) -> None:
    """Change a key's limits, which hold beside its tenant's; prints its id."""
    body = limited(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent_requests=concurrent_requests,
        tokens_per_day=tokens_per_day,
        tokens_per_month=tokens_per_month,
    )
    answer = call("PATCH", f"/tenants/{segment(tenant)}/keys/{segment(key_id)}", body)
    show(answer, as_json=as_json, text=answer["id"])


@keys.command("list")
def list_keys(tenant: TenantName, as_json: Json = False) -> None:
    """Id, prefix, scopes, made, expires, revoked, limits."""
    columns = ("id", "prefix", "scopes", "created_at", "expires_at", "revoked_at", "limits")
    table(every(f"/tenants/{segment(tenant)}/keys"), columns, as_json=as_json)


@keys.command("revoke")
def revoke_key(tenant: TenantName, key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Revoke a key by its id; prints the id."""
    call("DELETE", f"/tenants/{segment(tenant)}/keys/{segment(key_id)}")
    show(None, as_json=False, text=key_id)


@metrics.command("declare")
def declare_metric(
    tenant: TenantName,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    kind: Annotated[Kind, typer.Option(help="What its values are.")] = "boolean",
    optimize: Annotated[Literal["max", "min"], typer.Option(help="Whether larger is better, or smaller.")] = "max",
    description: Annotated[str, typer.Option(help="What it says about an answer.")] = "",
    unit: Annotated[str, typer.Option(help="What is read behind the number, such as EUR.")] = "",
    numerator: Annotated[str | None, typer.Option(metavar="METRIC", help="Of a ratio.")] = None,
    denominator: Annotated[str | None, typer.Option(metavar="METRIC", help="Of a ratio.")] = None,
    as_json: Json = False,
) -> None:
    """Declare a metric; prints its name."""
    body = {"name": name, "kind": kind, "optimize": optimize, "description": description, "unit": unit}
    body |= _given(numerator=numerator, denominator=denominator)
    answer = call("POST", f"/tenants/{segment(tenant)}/metrics", body)
    show(answer, as_json=as_json, text=answer["name"])


@metrics.command("list")
def list_metrics(tenant: TenantName, as_json: Json = False) -> None:
    """Name, kind, better direction, description."""
    table(every(f"/tenants/{segment(tenant)}/metrics"), ("name", "kind", "optimize", "description"), as_json=as_json)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
