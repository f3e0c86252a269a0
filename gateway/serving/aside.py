"""What a client's body says that is not for the engine, and what an answer to it must say of the request.

Only dialects whose bodies name episodes have it; for the others it is None. It knows no fields and no answers.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Aside(msgspec.Struct, frozen=True, kw_only=True):
    """`episode`: the one the body names, or one that begins with it (`born`), and that most clients never come back to.
    `kept`: it is to be recorded. `json`: the client waits for one JSON value, not for a chat. `tools` are the names of
    those offered. `labels`: what it says of itself in short, for experiments."""

    episode: str
    born: bool = False
    kept: bool = True
    json: bool = False
    tools: frozenset[str] = frozenset()
    labels: dict[str, str] = {}


class Named(Protocol):
    """A request under way, as far as its answer names it: the bare id, the variant, and what was said aside."""

    @property
    def id(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def aside(self) -> Aside | None: ...
