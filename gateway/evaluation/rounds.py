"""The rounds of evaluation: one worker of the installation looks at each running experiment, again and again.

    each period   what came in is counted; each experiment that is not paused is judged; the verdict is kept; a new word
                  is told; the plan's step, if one is due, is begun
    a step        runs beside the rounds, since a swap may wait a minute for a worker; its experiment is left alone
                  meanwhile; if it fails, the next round finds it due again
    a new stage   is told in the round that finds it, whoever made it

Who holds the installation's lock goes round; the others try for it once a period. Losing the lock in the midst of a
round does no harm: a step is a swap, and of two swaps the second is refused. One experiment that cannot be judged
stops nobody else's round.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from gateway.control.experiments import Experiments
from gateway.errors import GatewayError, Unavailable
from gateway.evaluation import figures
from gateway.evaluation.judging import Judged, Judging
from gateway.evaluation.keeping import Keeping
from gateway.evaluation.news import News
from gateway.evaluation.steps import Action, Step, next_step
from gateway.evaluation.weights import Draw, draw
from gateway.experiment import Allocation, By, Experiment, Stage
from gateway.store import looks
from gateway.store.alone import EVALUATION, Alone, alone, silence
from gateway.store.database import Database
from gateway.store.shadows import Compared, compared
from gateway.telemetry import names

log = logging.getLogger("gateway.evaluation")

T = TypeVar("T")
RULE = "rule"
"""Who acts, in the audit log."""


class Gauges(Protocol):
    """As `telemetry.Telemetry`."""

    def observe(self, name: str, read: Callable[[], float], *, counter: bool = False) -> None: ...


class Rounds:
    """`seconds` is the period; `tell` gets every piece of news once it is kept, and must not block."""

    def __init__(
        self,
        db: Database,
        judging: Judging,
        keeping: Keeping,
        experiments: Experiments,
        *,
        seconds: float,
        tell: Callable[[News], None],
        gauges: Gauges | None = None,
    ) -> None:
        self._db = db
        self._judging = judging
        self._keeping = keeping
        self._experiments = experiments
        self._seconds = seconds
        self._tell = tell
        self._under_way: set[str] = set()
        self._began: float | None = None
        self._took = 0.0
        self._failures = 0
        if gauges is not None:
            gauges.observe(names.EVALUATION_LAG, self._lag)
            gauges.observe(names.EVALUATION_DURATION, lambda: self._took)
            gauges.observe(names.EVALUATION_FAILURES, lambda: self._failures, counter=True)
            gauges.observe(names.EVALUATED_UNITS, lambda: judging.units, counter=True)

    async def run(self) -> None:
        """Go round until cancelled, or wait for one's turn to."""
        while True:
            try:
                async with alone(self._db.url, EVALUATION) as held:
                    if held is not None:
                        await self._lead(held)
                self._began = time.monotonic() - await silence(self._db, EVALUATION)
            except Unavailable as error:
                self._failures += 1
                log.warning("no evaluation now", extra={"reason": error.message})
            await asyncio.sleep(self._seconds)

    async def _lead(self, held: Alone) -> None:
        """Go round while the lock is ours. Steps under way are ended before it is given back."""
        log.info("evaluating", extra={"pid": os.getpid(), "period_s": self._seconds})
        async with asyncio.TaskGroup() as steps:
            while True:
                try:
                    await held.confirm()
                except Unavailable:
                    return
                self._began = began = time.monotonic()
                await self.once(steps)
                self._took = time.monotonic() - began
                await asyncio.sleep(max(self._seconds - self._took, self._seconds / 10))

    async def once(self, steps: asyncio.TaskGroup) -> None:
        """One round. Steps that it begins go on in `steps`; what fails is logged."""
        await self._try(self._judging.catch_up(self._seconds), "what came in was not counted")
        await self._try(self._tell_stages(), "stages were not told")
        for experiment_id in await self._try(self._running(), "no experiment was evaluated") or ():
            if experiment_id not in self._under_way:
                await self._try(self._look_at(experiment_id, steps), "not evaluated", experiment=experiment_id)

    async def _try(self, work: Awaitable[T], otherwise: str, **about: str) -> T | None:
        """Its result; or None, and a line in the log."""
        try:
            return await work
        except GatewayError as error:
            self._failures += 1
            log.warning(otherwise, extra={**about, "reason": error.message})
        except Exception:
            self._failures += 1
            log.exception(otherwise, extra=about)
        return None

    async def _running(self) -> list[str]:
        async with self._db.transaction(picture=True) as connection:
            return await looks.running(connection)

    async def _look_at(self, experiment_id: str, steps: asyncio.TaskGroup) -> None:
        """Judge one, keep and tell what was found, and begin what is due."""
        experiment = await self._experiments.get(experiment_id)
        judged = await self._judging.judged(experiment)
        for news in await self._keeping.verdict(experiment, judged.verdict, datetime.now(UTC)):
            self._tell(news)
        step = next_step(experiment, judged.verdict, await self._shadows(experiment))
        work = self._take(experiment, judged, step) if step else await self._weigh(experiment, judged)
        if work is not None:
            self._under_way.add(experiment_id)
            steps.create_task(self._finish(experiment_id, work))

    async def _shadows(self, experiment: Experiment) -> dict[str, Compared]:
        """What its candidates answered, where the rule may want to know: it takes a second for many requests."""
        if experiment.stage is not Stage.SHADOW or experiment.plan.widen is not By.RULE:
            return {}
        found = await compared(self._db, experiment.tenant, experiment.alias, since=experiment.started_at)
        return {one.ref: one for one in found}

    async def _take(self, experiment: Experiment, judged: Judged, step: Step) -> None:
        """Do what is due, unless somebody has moved the experiment meanwhile."""
        now = await self._experiments.get(experiment.id)
        if now.stage is not experiment.stage or now.paused:
            return
        why, found = step.why, figures.brief(judged.verdict)
        match step.action:
            case Action.ROLL_BACK:
                await self._experiments.roll_back(experiment.id, why=why, figures=found, actor=RULE)
            case Action.PROMOTE:
                assert step.variant is not None  # steps.next_step names one
                await self._experiments.promote(experiment.id, step.variant, why=why, figures=found, actor=RULE)
            case Action.ADVANCE:
                await self._experiments.advance(experiment.id, why=why, figures=found, actor=RULE)

    async def _weigh(self, experiment: Experiment, judged: Judged) -> Coroutine[Any, Any, None] | None:
        """Of an adaptive experiment, to deal out users by new weights, if that is due."""
        if experiment.plan.allocation is not Allocation.THOMPSON:
            return None
        weighed = await self._keeping.weighed(experiment)
        drawn = draw(experiment, judged, weighed, secrets.randbits(48))
        return None if drawn is None else self._reweigh(experiment, drawn)

    async def _reweigh(self, experiment: Experiment, drawn: Draw) -> None:
        if drawn.weights is not None:
            await self._experiments.reweight(
                experiment.id, drawn.weights, why=drawn.why, figures=drawn.figures, actor=RULE
            )
        await self._keeping.weigh(experiment, drawn.units)

    async def _finish(self, experiment_id: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await self._try(work, "the step was not taken", experiment=experiment_id)
        finally:
            self._under_way.discard(experiment_id)
        await self._try(self._tell_stages(), "stages were not told")

    async def _tell_stages(self) -> None:
        """Of a step that is under way later: what is told of it holds for all workers."""
        for news in await self._keeping.stages(datetime.now(UTC), but=self._under_way):
            self._tell(news)

    def _lag(self) -> float:
        """Seconds since the newest round began, whoever goes round: one that hangs cannot say so itself."""
        return 0.0 if self._began is None else time.monotonic() - self._began
