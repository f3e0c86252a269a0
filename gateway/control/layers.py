"""Layers: experiments of a tenant of which no unit takes part in two. Each holds stretches of one line of units.

The line is drawn by the layer's own salt, so that a unit has one place on it whatever the experiment. Space is taken
when a stage needs it, kept while the experiment lives, paused or not, and free when it has ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gateway.control.buckets import Stretch, free, grown, measure
from gateway.domain import Alias
from gateway.errors import Conflict
from gateway.experiment import Experiment
from gateway.store import experiments
from gateway.store.database import Connection
from gateway.store.snapshots import read_secret


def salt_of(secret: bytes, tenant: str, layer: str) -> str:
    """32 hex, the same for all experiments of a layer, and no way for a client to know it."""
    return hashlib.blake2b(f"layer:{tenant}:{layer}".encode(), key=secret, digest_size=16).hexdigest()


async def others(connection: Connection, experiment: Experiment) -> list[Experiment]:
    """Whom an experiment shares its layer with now. Raises `Conflict` where they deal out something else: a user and
    that user's conversation cannot be kept apart."""
    if experiment.layer is None:
        return []
    found = [
        one
        for one in await experiments.of_layer(connection, experiment.tenant, experiment.layer)
        if one.id != experiment.id
    ]
    for one in found:
        if one.unit is not experiment.unit:
            raise Conflict(
                f"The layer `{experiment.layer}` deals out units of the kind {one.unit.value} ({one.id}).",
                remedy=f"Give this experiment the unit {one.unit.value}, or another layer.",
                param="layer",
            )
    return found


def room(experiment: Experiment, coverage: float, beside: Sequence[Experiment]) -> tuple[Stretch, ...]:
    """The stretches with which an experiment covers this share: what it has, and of what is free the rest.

    Raises `Conflict` with what is free.
    """
    own = experiment.split.stretches if experiment.split is not None else ()
    taken = _held(beside)
    found = grown(own, coverage, taken)
    if found is None:
        left = measure(free([*own, *taken]))
        holders = ", ".join(f"{one.id} has {_percent(measure(_held([one])))}" for one in beside if one.split)
        raise Conflict(
            f"The layer `{experiment.layer}` has {_percent(left)} of its units free, and {_percent(coverage)} are"
            f" wanted ({holders}).",
            remedy="Ask for a smaller coverage, end one of those experiments, or use another layer.",
            param="coverage",
            code="layer_full",
        )
    return found


async def require_disjoint(connection: Connection, experiment: Experiment) -> None:
    """Inside the change that writes it: nobody took its space since it was planned. Raises `Conflict`."""
    if experiment.layer is None or experiment.split is None or experiment.stage.ended:
        return
    taken = _held(await others(connection, experiment))
    if any(low < end and begin < high for low, high in experiment.split.stretches for begin, end in taken):
        raise Conflict(f"The layer `{experiment.layer}` was changed meanwhile.", remedy="Try again.")


async def space(
    connection: Connection, alias: Alias, experiment: Experiment, coverage: float
) -> tuple[str, tuple[Stretch, ...]]:
    """The salt by which it is drawn who takes part, and the stretches that cover this share."""
    beside = await others(connection, experiment)
    stretches = room(experiment, coverage, beside) if coverage else ()
    if experiment.layer is None:
        return alias.salt, stretches
    return salt_of(await read_secret(connection), experiment.tenant, experiment.layer), stretches


def _held(beside: Sequence[Experiment]) -> list[Stretch]:
    return [stretch for one in beside if one.split is not None for stretch in one.split.stretches]


def _percent(part: float) -> str:
    return f"{part * 100:.4g} %"
