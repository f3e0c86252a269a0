"""How limits lie in their column: a JSON object of those that are set, or null."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

from gateway.domain import Limits

_KNOWN = frozenset(field.name for field in fields(Limits))


def packed(limits: Limits | None) -> str | None:
    """As the column wants it."""
    given = {name: value for name, value in asdict(limits).items() if value is not None} if limits else {}
    return json.dumps(given) if given else None


def unpacked(column: str | None) -> Limits | None:
    """As the domain has it. A newer gateway's further limits are left alone: it has migrated, we are on our way out."""
    if column is None:
        return None
    return Limits(**{name: value for name, value in json.loads(column).items() if name in _KNOWN})
