"""Which names may be given, and the one sentence about a name that is unknown. It asks nobody: text in, errors out.

The sentence is the same for what does not exist and for what is somebody else's, and the HTTP edge uses the same one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from adapters.ref import AdapterRef, is_slug
from gateway.domain import BASE, Shadow, Variant
from gateway.errors import InvalidRequest, NotFound
from gateway.store import tenants
from gateway.store.database import Connection

MAX_VARIANTS = 16


def unknown(what: str, name: str, *, param: str) -> NotFound:
    """For a tenant, alias, adapter version, … that does not exist, or not for this tenant."""
    return NotFound(f"The {what} `{name[:160]}` does not exist or you do not have access to it.", param=param)


async def require_tenant(connection: Connection, name: str) -> None:
    """Raises `NotFound` when there is no such tenant."""
    if await tenants.find(connection, name) is None:
        raise unknown("tenant", name, param="tenant")


def check_name(what: str, name: str, *, reserved: bool = False) -> None:
    """Raises `InvalidRequest` unless `name` may be a `what`; with `reserved`, "base" may not be one either."""
    if not is_slug(name):
        raise InvalidRequest(
            f"`{name[:80]}` is no name for {what}.",
            remedy="Use 1 to 64 of a-z 0-9 . _ -, beginning and ending with a letter or digit.",
            param="name",
        )
    if reserved and name == BASE:
        raise InvalidRequest(f"`{BASE}` means the base model.", remedy=f"Give {what} another name.", param="name")


def check_variants(tenant: str, variants: Sequence[Variant]) -> None:
    """Raises `InvalidRequest` unless traffic can be split among these, `NotFound` if one is another tenant's."""
    if not 1 <= len(variants) <= MAX_VARIANTS:
        raise InvalidRequest(f"Give 1 to {MAX_VARIANTS} variants.", param="variants")
    names = [variant.name for variant in variants]
    if len(set(names)) != len(names):
        raise InvalidRequest("Two variants have one name.", remedy="Name each differently.", param="variants")
    for variant in variants:
        check_name("a variant", variant.name)
        if not (math.isfinite(variant.weight) and variant.weight >= 0):
            raise InvalidRequest(f"The weight of `{variant.name}` is no number from 0 up.", param="variants")
        if variant.ref is not None and variant.ref.tenant != tenant:
            raise unknown_adapter(variant.ref)
    if not math.fsum(variant.weight for variant in variants) > 0:
        raise InvalidRequest("Every variant has weight 0.", remedy="Give one a weight above 0.", param="variants")


def check_shadow(tenant: str, shadow: Shadow) -> None:
    """Raises `InvalidRequest` unless this is a share, `NotFound` if the candidate is another tenant's."""
    if not 0 < shadow.share <= 1:  # NaN is not
        raise InvalidRequest("A share is a number above 0, up to 1.", remedy="0.1 is one in ten.", param="share")
    if shadow.ref is not None and shadow.ref.tenant != tenant:
        raise unknown_adapter(shadow.ref)


def unknown_adapter(ref: AdapterRef) -> NotFound:
    return unknown("adapter version", str(ref), param="ref")
