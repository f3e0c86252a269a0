"""Labelling pairs: two answers to the same prompt side by side, without their names, and which is better. What people
say here is a preference like any other: the next round learns from it.
"""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway.console import naming
from gateway.console.answers import find, say
from gateway.console.here import Desk, Fields, Here
from gateway.console.transcript import clean, transcript
from gateway.domain import MetricKind
from gateway.errors import Conflict
from gateway.store import browsing
from gateway.store.browsing import Answer

router = APIRouter()
PLACE = None

Id = Annotated[str, Query(max_length=64)]


@router.get("/t/{tenant}/feedback/pairs")
async def show(here: Here, one: Id = "", other: Id = "", told: Id = "", over: Id = "") -> Response:
    """A pair that is named, or any of those that wait; after a vote, what it was about."""
    waiting = await browsing.pairs(here.rooms.db, here.tenant)
    named = (one, other) if one and other else secrets.choice(waiting) if waiting else None
    pair = await _pair(here, *named) if named is not None else None
    voted = [await find(here, told), await find(here, over)] if told and over else None
    return here.page(
        "pairs.jinja",
        title="Label pairs",
        pair=pair,
        messages=transcript(pair[0].messages) if pair is not None else [],
        texts=[clean(each.answer or "") for each in pair or ()],
        voted=[each.served for each in voted] if voted is not None else None,
        waiting=len(waiting),
        metrics=naming.metrics(here.rooms.current.snapshot, here.tenant, MetricKind.PREFERENCE),
        keeps=here.rooms.current.snapshot.tenants[here.tenant].store_content,
        nonce=secrets.token_hex(16),
    )


@router.post("/t/{tenant}/feedback/pairs")
async def vote(here: Here, fields: Fields) -> Response:
    """The winner over the loser. The same form sent twice is one vote."""
    winner, loser = await _pair(here, fields.get("winner", ""), fields.get("loser", ""), shuffled=False)
    await say(here, winner.id, fields.get("metric", ""), loser.id, nonce=fields.get("nonce", ""))
    return here.go(f"feedback/pairs?told={winner.id}&over={loser.id}")


async def _pair(here: Desk, one: str, other: str, *, shuffled: bool = True) -> list[Answer]:
    """In no order that tells anything. Raises `Conflict` unless they are two answers to the same prompt."""
    pair = [await find(here, one), await find(here, other)]
    first, second = pair
    same = first.messages is not None and first.messages == second.messages and first.id != second.id
    if not (same and first.answer and second.answer):
        raise Conflict("These are not two whole answers to the same prompt.", remedy="Choose another pair.")
    if shuffled and secrets.randbelow(2):
        pair.reverse()
    return pair
