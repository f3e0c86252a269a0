"""What an experiment's units come to, kept current as inferences and feedback arrive, and read in milliseconds.

To be filled in; the interface stands.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.domain import Metric
from gateway.experiment import Evidence, Experiment
from gateway.store.database import Database


class Tallies:
    """Build one per worker: it holds nothing but the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def catch_up(self, *, limit: int = 5000) -> int:
        """Work in up to `limit` marks in one transaction; how many units were recomputed (0: nothing is left).

        Any number of workers may call it at once: they take turns. Raises `Unavailable`.
        """
        return 0

    async def evidence(self, experiment: Experiment, metrics: Mapping[str, Metric]) -> Evidence:
        """What is known of `metrics` (automatic ones may be among them), as of the last `catch_up`: a few reads of
        totals, whose number does not depend on the traffic. Raises `Unavailable`."""
        return Evidence()

    async def rebuild(self, experiment_id: str) -> None:
        """Work everything out anew from the raw rows; evidence stays the old one until all of it is there."""
