"""By what figures are worked out beside the raw rows: an experiment's plan, its tenant's metrics, the price of tokens.

Two recipes with the same digest give the same figures; where it changes, the figures are another generation
(`tallies.py`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from gateway.domain import Metric, MetricKind
from gateway.experiment import Experiment
from gateway.store import metrics
from gateway.store.automatic import NAMES, Price
from gateway.store.database import Connection

VERSION = 1
"""Of the statement. A change that gives other figures from the same rows needs a new one: then all is rebuilt."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that figures are worked out from beside the raw rows. `own` are the automatic metrics' names that the tenant
    has given to metrics of its own."""

    experiment: Experiment
    ratios: tuple[Metric, ...] = ()
    own: tuple[str, ...] = ()
    price: Price | None = None

    @property
    def digest(self) -> str:
        """The same for recipes that give the same figures."""
        ratios = [(one.name, one.numerator, one.denominator) for one in self.ratios]
        price = (str(self.price.input.normalize()), str(self.price.output.normalize())) if self.price else None
        plan, unit = self.experiment.plan, self.experiment.unit.value
        told = json.dumps([VERSION, unit, plan.primary, plan.cuped_days, ratios, self.own, price])
        return hashlib.sha256(told.encode()).hexdigest()[:16]


async def set_price(connection: Connection, price: Price | None) -> None:
    """From now on tokens cost this; None: there is no cost."""
    await connection.execute("DELETE FROM token_price")
    if price is not None:
        await connection.execute(
            "INSERT INTO token_price (input, output, currency) VALUES ($1, $2, $3)",
            price.input,
            price.output,
            price.currency,
        )


async def recipe_of(connection: Connection, experiment: Experiment) -> Recipe:
    """As of now: by the plan's ratios, the tenant's metrics with automatic names, and the price of tokens."""
    declared = await metrics.of_tenant(connection, experiment.tenant)
    plan = experiment.plan
    named = {plan.primary, *plan.secondaries, *(guardrail.metric for guardrail in plan.guardrails)}
    ratios = tuple(one for one in declared if one.kind is MetricKind.RATIO and one.name in named)
    price = await connection.fetchrow("SELECT input, output, currency FROM token_price")
    own = tuple(one.name for one in declared if one.name in NAMES)
    return Recipe(experiment, ratios, own, Price(**price) if price else None)
