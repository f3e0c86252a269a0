"""What a request's `metadata` (TensorZero's `tags`) says of it, for experiments that tell parts of the traffic apart.

Short labels only (`plan: pro`, `language: de`): they are kept for tenants whose prompts are not, and outlive an
erasure, so nothing passes that could be a text, an address or a person's name with a blank in it.
"""

from __future__ import annotations

import re
from typing import Any

MOST = 8
"""Labels of one request; the others are dropped."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z")


def labels_of(metadata: Any) -> dict[str, str]:
    """Those entries whose key and value are short labels, by their names' order."""
    if not isinstance(metadata, dict):
        return {}
    short = ((key, value) for key, value in sorted(metadata.items()) if isinstance(value, str))
    return dict([(key, value) for key, value in short if _LABEL.match(key) and _LABEL.match(value)][:MOST])
