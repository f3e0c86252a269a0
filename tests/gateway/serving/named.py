"""A request under way, as an answer's reader sees it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.serving.aside import Aside


@dataclass(frozen=True, slots=True)
class Told:
    id: str
    variant: str = "tuned"
    aside: Aside | None = None
