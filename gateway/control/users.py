"""Users: what is kept of one can be erased, and what learnt from it is named. A user is known by a hash only."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.ref import AdapterRef
from gateway.control.lineage import Lineages, Who
from gateway.store import erasures
from gateway.store.database import Database
from gateway.store.erasures import Erased


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased of the user `unit`, and the versions in use that learnt from it: train them again without."""

    unit: str
    erased: Erased
    retrain: tuple[AdapterRef, ...]


class Users:
    """Erase. Which versions a user's rows went into is the lineage's to tell."""

    def __init__(self, db: Database, lineages: Lineages) -> None:
        self._db = db
        self._lineages = lineages

    async def erase(self, tenant: str, who: Who, *, actor: str) -> Forgotten:
        """Erase the user's prompts, answers and feedback up to now. Raises `NotFound` for an unknown tenant,
        `InvalidRequest` for what names nobody.

        Nothing tells whether there ever was such a user: for an unknown one the answer is zeros.
        """
        unit, learnt = await self._lineages.of_user(tenant, who)
        erased = await erasures.erase(self._db, tenant, unit, actor=actor)
        return Forgotten(unit, erased, tuple(one.part.ref for one in learnt if not one.part.retired))
