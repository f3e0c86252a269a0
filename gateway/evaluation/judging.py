"""A verdict on one experiment as of now: what came in is counted, what was counted is judged. It acts on nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.domain import Metric
from gateway.experiment import Evidence, Experiment
from gateway.feedback.tallies import Tallies
from gateway.feedback.verdict import judge
from gateway.findings import Verdict
from gateway.store import metrics
from gateway.store.automatic import automatic
from gateway.store.database import Database


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and what it was made of."""

    verdict: Verdict
    evidence: Evidence
    metrics: Mapping[str, Metric]


class Judging:
    """Counts and judges."""

    def __init__(self, db: Database, tallies: Tallies, *, currency: str | None = None) -> None:
        self._db = db
        self._tallies = tallies
        self.currency = currency
        self.units = 0
        """Recomputed since the start."""
        self.set_aside = 0
        """Those that could not be recomputed, and wait to be tried again."""

    async def catch_up(self, seconds: float) -> bool:
        """Count what came in, for about `seconds` at most; whether nothing is left. Raises `Unavailable`."""
        give_up = time.monotonic() + seconds
        while found := await self._tallies.catch_up():
            self.units += found
            if time.monotonic() > give_up:
                break
        self.set_aside = await self._tallies.set_aside()
        return not found

    async def judged(self, experiment: Experiment) -> Judged:
        """By what has been counted so far. Raises `Unavailable`."""
        meant = await self._metrics(experiment)
        evidence = await self._tallies.evidence(experiment, meant)
        # Some 15 ms of arithmetic with twenty segments: in a thread, no stream of this worker waits for it.
        verdict = await asyncio.to_thread(judge, experiment, meant, evidence)
        return Judged(verdict, evidence, meant)

    async def verdict(self, experiment: Experiment) -> Verdict:
        """As of now, as far as what came in can be counted in a few seconds. Raises `Unavailable`."""
        await self._tallies.catch_up_with(experiment)
        return (await self.judged(experiment)).verdict

    async def _metrics(self, experiment: Experiment) -> dict[str, Metric]:
        """Those that the plan names, as they are declared; the tenant's own win over the automatic ones."""
        plan = experiment.plan
        named = {plan.primary, *plan.secondaries, *(guardrail.metric for guardrail in plan.guardrails)}
        async with self._db.transaction(picture=True) as connection:
            declared = {one.name: one for one in await metrics.of_tenant(connection, experiment.tenant)}
        known = {**automatic(experiment.tenant, currency=self.currency), **declared}
        return {name: metric for name, metric in known.items() if name in named}
