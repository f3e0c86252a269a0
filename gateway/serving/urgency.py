"""What a request says about its own urgency: its class, and how long its answer is worth waiting for.

Bytes and names in, a class or seconds out. It knows nothing of queues.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from gateway.domain import Tenant
from gateway.errors import InvalidRequest

DEADLINE_HEADER = b"x-request-timeout-ms"
LONGEST_MS = 86_400_000


class Priority(IntEnum):
    """The class of a request. SHADOW is ours alone: a copy that nobody waits for."""

    SHADOW = -1
    LOW = 0
    NORMAL = 1
    HIGH = 2


def priority_of(service_tier: str | None, tenant: Tenant) -> Priority:
    """OpenAI's `service_tier` as a class: "flex" gives way to others, "priority" goes first.

    Only a tenant that was given more than an ordinary share (weight > 1) may go first: HIGH passes other tenants'
    requests, so it is the operator's to grant, and whoever grants it has already said that this tenant counts for more.
    From the others, and whatever else a tier is called, a request is NORMAL.
    """
    if service_tier is None:
        return Priority.NORMAL
    if service_tier == "flex":
        return Priority.LOW
    return Priority.HIGH if service_tier == "priority" and tenant.weight > 1 else Priority.NORMAL


def deadline_of(headers: Mapping[bytes, bytes]) -> float | None:
    """Seconds from now after which the client wants no answer any more; None when it does not say.

    Raises `InvalidRequest` for anything but a whole number of milliseconds from 1 to a day's.
    """
    value = headers.get(DEADLINE_HEADER)
    if value is None:
        return None
    # isdigit first: int() also takes signs, spaces and underscores. Of bytes it knows ASCII only.
    milliseconds = int(value) if value.isdigit() and len(value) <= len(str(LONGEST_MS)) else 0
    if not 1 <= milliseconds <= LONGEST_MS:
        name = DEADLINE_HEADER.decode()
        raise InvalidRequest(
            f"The header '{name}' must be a whole number of milliseconds from 1 to {LONGEST_MS}.",
            param=name,
            code="invalid_request_timeout",
        )
    return milliseconds / 1000
