"""Rounds: what the feedback supports now, alias by alias, and what past rounds came to.

The words and the numbers that are enough are `trainer plan`'s; it alone weighs rows, finds those that say the same and
holds each user to a share, so its answer is the exact one. A test holds both to the same numbers (tests/contract).
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter
from starlette.responses import Response

from gateway.console import words
from gateway.console.adapters import VERDICTS, versions
from gateway.console.here import Here, Place
from gateway.store.heard import MOST, Heard, heard

router = APIRouter()
PLACE = Place("rounds", "Rounds")

SFT_ROWS = 50
DPO_PAIRS = 500
KTO_LABELS = 500
KTO_LESSER = 50


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a method has about enough to learn from. `missing` is empty if it has."""

    recipe: str
    have: str
    missing: str


@router.get("/t/{tenant}/rounds")
async def index(here: Here) -> Response:
    """Past rounds are the versions that a trainer made, the newest first."""
    made = [one for one in await versions(here) if one.manifest and one.manifest.lineage.run_id != "imported"]
    made.sort(key=lambda one: one.manifest.created_at.timestamp() if one.manifest else 0.0, reverse=True)
    keeps = here.rooms.current.snapshot.tenants[here.tenant].store_content
    return here.page("rounds.jinja", title="Rounds", made=made, verdicts=VERDICTS, keeps=keeps)


@router.get("/t/{tenant}/rounds/support")
async def support(here: Here) -> Response:
    """The counts alone: they take longer than the rest of the page."""
    found = await heard(here.rooms.db, here.tenant)
    return here.part("support.jinja", aliases=[(one, supports(one)) for one in found], most=MOST)


def supports(one: Heard) -> list[Support]:
    """Each method, in the order in which a round would choose it."""
    rows, pairs, labels = one.corrections + one.good, one.preferences + one.corrections, one.good + one.bad
    short = (
        [] if labels + one.ratings >= KTO_LABELS else [f"{KTO_LABELS - labels - one.ratings} more thumbs or ratings"]
    )
    if (lesser := KTO_LESSER - min(one.good, one.bad)) > 0:
        short.append(f"{lesser} more of them {'up' if one.good < one.bad else 'down'}")
    return [
        Support(
            "SFT",
            f"{words.plural(one.corrections, 'correction')}, {words.plural(one.good, 'liked answer')}",
            f"{SFT_ROWS - rows} more corrections or liked answers" if rows < SFT_ROWS else "",
        ),
        Support(
            "DPO",
            f"{words.plural(one.preferences, 'preference')}, {words.plural(one.corrections, 'correction')}",
            f"{DPO_PAIRS - pairs} more pairs" if pairs < DPO_PAIRS else "",
        ),
        Support("KTO", f"{one.good:,} up, {one.bad:,} down, {words.plural(one.ratings, 'rating')}", ", ".join(short)),
    ]
