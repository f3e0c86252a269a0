"""Rows of `aliases`, each the newest revision of its pointer, and of `alias_revisions`, all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from adapters.ref import AdapterRef
from gateway.domain import Alias, Fallback, Shadow, Split, Unit, Variant
from gateway.store.database import Connection

# How users are dealt out is the running experiment's, which may be paused.
_SELECT = """
SELECT a.tenant, a.name, a.revision, a.variants, a.salt, a.previous, a.fallback, a.experiment, a.shadow,
       CASE WHEN NOT e.paused THEN e.split END AS split
FROM aliases a LEFT JOIN experiments e ON e.id = a.experiment
"""


async def find(connection: Connection, tenant: str, name: str) -> Alias | None:
    row = await connection.fetchrow(f"{_SELECT} WHERE a.tenant = $1 AND a.name = $2", tenant, name)
    return _alias(row) if row else None


async def of_tenant(connection: Connection, tenant: str) -> list[Alias]:
    return [_alias(row) for row in await connection.fetch(f"{_SELECT} WHERE a.tenant = $1 ORDER BY a.name", tenant)]


async def every(connection: Connection) -> list[Alias]:
    return [_alias(row) for row in await connection.fetch(_SELECT)]


async def referring(connection: Connection, ref: AdapterRef) -> list[str]:
    """Names of the tenant's aliases that send traffic to `ref`, mirror it there, or would go back to it."""
    aliases = await of_tenant(connection, ref.tenant)
    return [a.name for a in aliases if ref in _refs(a)]


async def put(connection: Connection, alias: Alias, *, actor: str, reason: str) -> None:
    """Make `alias` the newest revision, and keep it in the history with who made it and why. Its split is its
    experiment's to write."""
    variants = variants_to_json(alias.variants)
    shadow = None if alias.shadow is None else json.dumps(shadow_to_row(alias.shadow))
    await connection.execute(
        "INSERT INTO aliases (tenant, name, revision, variants, previous, salt, fallback, experiment, shadow)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (tenant, name) DO UPDATE SET"
        " (revision, variants, previous, salt, fallback, experiment, shadow) = ROW (EXCLUDED.revision,"
        " EXCLUDED.variants, EXCLUDED.previous, EXCLUDED.salt, EXCLUDED.fallback, EXCLUDED.experiment,"
        " EXCLUDED.shadow)",
        alias.tenant,
        alias.name,
        alias.revision,
        variants,
        None if alias.previous is None else variants_to_json(alias.previous),
        alias.salt,
        alias.fallback.value,
        alias.experiment,
        shadow,
    )
    await connection.execute(
        "INSERT INTO alias_revisions"
        " (tenant, alias, revision, variants, salt, fallback, experiment, actor, reason, shadow)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        alias.tenant,
        alias.name,
        alias.revision,
        variants,
        alias.salt,
        alias.fallback.value,
        alias.experiment,
        actor,
        reason,
        shadow,
    )


def variants_to_rows(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """As they are stored: a ref is its text, the base model's is null."""
    return [{"name": v.name, "weight": v.weight, "ref": None if v.ref is None else str(v.ref)} for v in variants]


def variants_to_json(variants: Sequence[Variant]) -> str:
    """The JSON text of a variants column."""
    return json.dumps(variants_to_rows(variants))


def variants_from_json(text: str) -> tuple[Variant, ...]:
    """The inverse of `variants_to_json`."""
    return tuple(
        Variant(v["name"], v["weight"], AdapterRef.parse(v["ref"]) if v["ref"] else None) for v in json.loads(text)
    )


def split_to_json(split: Split | None) -> str | None:
    """The JSON text of an experiment's column `split`."""
    return None if split is None else json.dumps(asdict(split))


def split_from_json(text: str | None) -> Split | None:
    """The inverse of `split_to_json`."""
    if text is None:
        return None
    row = json.loads(text)
    return Split(
        unit=Unit(row["unit"]),
        salt=row["salt"],
        stretches=tuple((low, high) for low, high in row["stretches"]),
        buckets=tuple((end, variant) for end, variant in row["buckets"]),
        overrides=row["overrides"],
    )


def shadow_to_row(shadow: Shadow) -> dict[str, Any]:
    """As it is stored."""
    return {"ref": None if shadow.ref is None else str(shadow.ref), "share": shadow.share}


def _shadow(text: str | None) -> Shadow | None:
    if text is None:
        return None
    row = json.loads(text)
    return Shadow(AdapterRef.parse(row["ref"]) if row["ref"] else None, row["share"])


def _refs(alias: Alias) -> set[AdapterRef | None]:
    return {one.ref for one in (*alias.variants, *(alias.previous or ()), *((alias.shadow,) if alias.shadow else ()))}


def _alias(row: Connection) -> Alias:
    return Alias(
        tenant=row["tenant"],
        name=row["name"],
        revision=row["revision"],
        variants=variants_from_json(row["variants"]),
        salt=row["salt"],
        previous=None if row["previous"] is None else variants_from_json(row["previous"]),
        fallback=Fallback(row["fallback"]),
        experiment=row["experiment"],
        split=split_from_json(row["split"]),
        shadow=_shadow(row["shadow"]),
    )
