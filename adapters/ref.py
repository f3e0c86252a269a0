"""The name of one adapter version: `tenant/name@version`. It never comes to mean other weights.

Names are made of what is safe in a path, a URL, a metric label and a cache key, so that nobody downstream has to quote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adapters.errors import InvalidRef

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z")
"""A tenant's, adapter's, alias's or variant's name: 1 to 64 of a-z 0-9 . _ -, with a letter or digit at both ends."""

_REF = re.compile(r"(?P<tenant>[^/@]+)/(?P<name>[^/@]+)@(?P<version>[1-9][0-9]{0,8})\Z")


def is_slug(text: str) -> bool:
    """Whether `text` may be a name. Two dots in a row are refused: they mean something to file systems."""
    return SLUG.match(text) is not None and ".." not in text


@dataclass(frozen=True, slots=True, order=True)
class AdapterRef:
    """An immutable adapter version. `str(ref)` is what the engine knows it by; `AdapterRef.parse` is the inverse."""

    tenant: str
    name: str
    version: int

    def __post_init__(self) -> None:
        for what, text in (("tenant", self.tenant), ("adapter name", self.name)):
            if not is_slug(text):
                raise InvalidRef(
                    f"{text!r} is no {what}: use 1 to 64 of a-z 0-9 . _ -, beginning and ending with a letter or digit"
                )
        if not 1 <= self.version <= 999_999_999:
            raise InvalidRef(f"{self.version} is no version: versions count from 1")

    @classmethod
    def parse(cls, text: str) -> AdapterRef:
        """Read `tenant/name@version`. Raises `InvalidRef`."""
        match = _REF.match(text)
        if match is None:
            raise InvalidRef(f"{text!r} is no adapter version: write it as tenant/name@version, such as acme/support@7")
        return cls(match["tenant"], match["name"], int(match["version"]))

    def __str__(self) -> str:
        return f"{self.tenant}/{self.name}@{self.version}"
