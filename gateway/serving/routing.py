"""What a request is to be served by. Names in, one assignment out: it knows nothing about HTTP, engines or weights.

A client may name an alias; and, where its tenant allows pinning, `alias:variant`, `adapter@version`,
`tenant/adapter@version` (its own tenant only) or `base`. Unknown, foreign and retired names are the same error, and so
are versions that their gate refused or has not decided about, except for who evaluates them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from adapters.errors import InvalidRef
from adapters.ref import AdapterRef
from gateway.domain import BASE, Adapter, Alias, Assignment, Fallback, Reason, Tenant, Unit
from gateway.errors import ModelNotFound, Unavailable
from gateway.serving.dealing import Dealing, assignment, share
from gateway.snapshot import Snapshot

EPISODE_SECONDS = 3600.0
EPISODES = 50_000
"""At about 0.5 kB each, the memory of one worker for conversations stays near 25 MB."""

Arm = tuple[float, Assignment]

_Compiled = tuple[Alias, tuple[Arm, ...], Dealing | None]

_compiled: dict[tuple[str, str], _Compiled] = {}
_MOST_COMPILED = 10_000


def arms(alias: Alias) -> tuple[Arm, ...]:
    """The variants that receive traffic outside of an experiment, each with the end of its stretch of [0, 1] and what
    it comes to. While an experiment is paused, or has not come to users yet, that is its control.

    The stretches follow the order of the variants, so that moving weight between two neighbours moves those users only.
    """
    if alias.experiment is not None:
        return ((1.0, assignment(alias, alias.variants[0], Reason.STATIC, 1.0)),)
    total = sum(variant.weight for variant in alias.variants)
    found, reached = [], 0.0
    for variant in alias.variants:
        if variant.weight > 0:
            reached += variant.weight
            propensity = variant.weight / total
            reason = Reason.SPLIT if propensity < 1 else Reason.STATIC
            found.append((reached / total, assignment(alias, variant, reason, propensity)))
    return tuple(found)


def _compile(alias: Alias) -> _Compiled:
    """Done once per alias object: a snapshot's aliases never change, and a new snapshot has new ones, in whose favour
    the old are forgotten (a thousand testers are half a megabyte)."""
    if len(_compiled) >= _MOST_COMPILED:
        _compiled.clear()
    known = (alias, arms(alias), None) if alias.split is None else (alias, (), Dealing(alias, alias.split))
    _compiled[alias.tenant, alias.name] = known
    return known


def assign(
    snapshot: Snapshot,
    tenant: Tenant,
    model: str,
    targeting_key: str,
    episode: str | None = None,
    inference_id: str = "",
) -> Assignment:
    """Decide by the snapshot alone. Raises `ModelNotFound`, and `Unavailable` where no variant receives traffic.

    `episode` and `inference_id` matter where an experiment deals those out; a unit that is not known is its targeting
    key.
    """
    name = (tenant.name, model)
    alias = snapshot.aliases.get(name)
    if alias is not None:
        known = _compiled.get(name)
        if known is None or known[0] is not alias:
            known = _compile(alias)
        _, static, dealing = known
        if len(static) == 1:
            return static[0][1]
        if dealing is not None:
            return dealing.draw(snapshot.secret, tenant.name, targeting_key, episode, inference_id)
        if not static:
            raise Unavailable("No variant of this model receives traffic.", remedy="Give one a weight above 0.")
        at = share(alias.salt, tenant.name, targeting_key)
        for end, drawn in static:
            if at < end:
                return drawn
        return static[-1][1]  # rounding can leave a key a hair beyond the last stretch
    if tenant.allow_pinning:
        if model == BASE or (tenant.evaluates and model == snapshot.base_model):
            return Assignment(BASE, 0, BASE, None, Reason.TARGETING_MATCH, 1.0)
        if "@" in model:
            return _version(snapshot, tenant, model)
        if ":" in model:
            return _variant(snapshot, tenant, model)
    raise ModelNotFound(model)


def instead_of(snapshot: Snapshot, tenant: Tenant, assigned: Assignment) -> AdapterRef | None:
    """What the fallback policy serves instead of an assignment that cannot be served (`None`: the base model).

    Raises `LookupError` when the policy is to fail, when the client named the version itself, or when there is nothing
    to fall back to.
    """
    alias = snapshot.aliases.get((tenant.name, assigned.alias))
    if alias is None or assigned.reason is Reason.TARGETING_MATCH or alias.fallback is Fallback.ERROR:
        raise LookupError
    if alias.fallback is Fallback.BASE:
        return None
    before = alias.previous or ()
    same = next((v for v in before if v.name == assigned.variant), None) or max(
        before, key=lambda v: v.weight, default=None
    )
    if same is None or same.ref == assigned.ref:
        raise LookupError
    return same.ref


def names(snapshot: Snapshot, tenant: Tenant) -> Iterator[str]:
    """All that this tenant may put in `model`, for `GET /v1/models`."""
    yield from sorted(name for owner, name in snapshot.aliases if owner == tenant.name)
    if tenant.allow_pinning:
        yield BASE
        own = (a.ref for a in snapshot.adapters.values() if a.ref.tenant == tenant.name and _nameable(a, tenant))
        yield from (f"{ref.name}@{ref.version}" for ref in sorted(own))


def servable(snapshot: Snapshot, ref: AdapterRef | None) -> bool:
    """Whether traffic may come to a version: it is registered, not retired, and not withheld by its gate. To the base
    model it always may."""
    adapter = snapshot.adapters.get(ref) if ref is not None else None
    return ref is None or (adapter is not None and adapter.servable)


def _nameable(adapter: Adapter, tenant: Tenant) -> bool:
    return not adapter.retired if tenant.evaluates else adapter.servable


def _version(snapshot: Snapshot, tenant: Tenant, model: str) -> Assignment:
    try:
        ref = AdapterRef.parse(model if "/" in model else f"{tenant.name}/{model}")
    except InvalidRef:
        raise ModelNotFound(model) from None
    adapter = snapshot.adapters.get(ref)
    if ref.tenant != tenant.name or adapter is None or not _nameable(adapter, tenant):
        raise ModelNotFound(model)
    return Assignment(ref.name, 0, f"{ref.name}@{ref.version}", ref, Reason.TARGETING_MATCH, 1.0)


def _variant(snapshot: Snapshot, tenant: Tenant, model: str) -> Assignment:
    name, _, wanted = model.partition(":")
    alias = snapshot.aliases.get((tenant.name, name))
    for variant in alias.variants if alias else ():
        if alias and variant.name == wanted:
            # Who names a variant takes no part in the experiment: nothing was drawn.
            return assignment(alias, variant, Reason.TARGETING_MATCH, 1.0)
    raise ModelNotFound(model)


@dataclass(frozen=True, slots=True)
class _Stay:
    """`on_trial`: what it began with was a candidate of its experiment, which serves only while that one runs."""

    assignment: Assignment
    until: float
    on_trial: bool


class Episodes:
    """Conversations, which stay on the version they began with for a bounded time.

    The memory is this worker's: another worker draws the same variant from the same hash, and differs only for an
    episode that a swap overtakes.
    """

    def __init__(
        self,
        *,
        capacity: int = EPISODES,
        seconds: float = EPISODE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stays: OrderedDict[tuple[str, str, str], _Stay] = OrderedDict()
        self._capacity, self._seconds, self._clock = capacity, seconds, clock

    def __len__(self) -> int:
        return len(self._stays)

    def keep(self, snapshot: Snapshot, tenant: Tenant, episode: str, fresh: Assignment) -> Assignment:
        """The assignment the episode began with if it can still be served, else `fresh`, which is then remembered."""
        if fresh.reason is Reason.TARGETING_MATCH:
            return fresh
        alias = snapshot.aliases.get((tenant.name, fresh.alias))
        if alias is not None and alias.split is not None and alias.split.unit is Unit.INFERENCE:
            return fresh  # each request is drawn for itself: that was the choice
        key, now = (tenant.name, fresh.alias, episode), self._clock()
        stay = self._stays.pop(key, None)
        stay = _still(stay, alias) if stay is not None and now < stay.until else None
        if stay is None or not servable(snapshot, stay.assignment.ref):
            on_trial = alias is not None and fresh.experiment is not None and fresh.variant != alias.variants[0].name
            stay = _Stay(fresh, now + self._seconds, on_trial)
        self._stays[key] = stay  # at the young end; its time still counts from its beginning
        if len(self._stays) > self._capacity:
            self._stays.popitem(last=False)
        began = stay.assignment
        # An experiment that ended, or one that began later, must not count this answer as its own. It must not even if
        # the variant happens to be the same: the arms would gain their users at different times.
        experiment = began.experiment if began.experiment == fresh.experiment else None
        if began.ref == fresh.ref and began.variant == fresh.variant:
            return fresh if experiment == fresh.experiment else replace(fresh, experiment=None)
        return replace(began, reason=Reason.CACHED, experiment=experiment)

    def forget(self, tenant: Tenant, alias: str, episode: str) -> None:
        """Let an episode begin anew: the version it was on cannot be served."""
        self._stays.pop((tenant.name, alias, episode), None)


def _still(stay: _Stay, alias: Alias | None) -> _Stay | None:
    """What is left of a stay: when its experiment is over or paused, a candidate's is, and a control's goes on outside
    of it."""
    began = stay.assignment.experiment
    if began is None or alias is None or (alias.split is not None and alias.experiment == began):
        return stay
    return None if stay.on_trial else replace(stay, assignment=replace(stay.assignment, experiment=None))
