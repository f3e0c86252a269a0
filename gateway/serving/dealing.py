"""How a running experiment deals out an alias's units. Keys in, one assignment out; it knows no snapshots and no names.

A unit's SHA-256 has room for both draws: the first eight bytes say which variant, the next eight whether it takes part.
They are two hashes only where the experiment is in a layer, whose salt all of its experiments share.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right

from gateway.domain import Alias, Assignment, Reason, Split, Unit, Variant
from gateway.identity import unit_of


def share(salt: str, tenant: str, targeting_key: str) -> float:
    """Where in [0, 1] a targeting key falls: the same for ever under one salt, and unrelated under another."""
    return int.from_bytes(_digest(salt, tenant, targeting_key)[:8], "big") / 2**64


def assignment(
    alias: Alias, variant: Variant, reason: Reason, propensity: float, experiment: str | None = None
) -> Assignment:
    """What a variant of an alias comes to."""
    return Assignment(alias.name, alias.revision, variant.name, variant.ref, reason, propensity, experiment)


class Dealing:
    """An alias's `split`, worked out once: the arms, what everybody outside gets, and the testers' variants."""

    __slots__ = ("_alias_salt", "_arms", "_bounds", "_everyone", "_outside", "_salt", "_testers", "_unit")

    def __init__(self, alias: Alias, split: Split) -> None:
        named = {variant.name: variant for variant in alias.variants}
        self._unit, self._salt, self._alias_salt = split.unit, split.salt, alias.salt
        self._everyone = split.stretches == ((0.0, 1.0),)
        self._bounds = [bound for stretch in sorted(split.stretches) for bound in stretch]
        self._arms = _arms(alias, split, named)
        # A hash decided it, but nothing was drawn that the experiment could weigh.
        self._outside = assignment(alias, alias.variants[0], Reason.SPLIT, 1.0)
        given = {name: assignment(alias, variant, Reason.TARGETING_MATCH, 1.0) for name, variant in named.items()}
        self._testers = {unit: given[name] for unit, name in split.overrides.items() if name in given}

    def draw(
        self, secret: bytes, tenant: str, targeting_key: str, episode: str | None, inference_id: str
    ) -> Assignment:
        """The arm of a unit that takes part; a tester's variant and what is outside belong to no experiment."""
        if self._testers:
            found = self._testers.get(unit_of(secret, tenant, targeting_key))
            if found is not None:
                return found
        unit = self._key(targeting_key, episode, inference_id)
        digest = _digest(self._alias_salt, tenant, unit)
        if not self._everyone:
            chosen = digest if self._salt == self._alias_salt else _digest(self._salt, tenant, unit)
            if bisect_right(self._bounds, int.from_bytes(chosen[8:16], "big") / 2**64) % 2 == 0:
                return self._outside
        at = int.from_bytes(digest[:8], "big") / 2**64
        for end, drawn in self._arms:
            if at < end:
                return drawn
        return self._arms[-1][1]  # a hair beyond the last bucket, by rounding

    def _key(self, targeting_key: str, episode: str | None, inference_id: str) -> str:
        if self._unit is Unit.TARGETING_KEY:
            return targeting_key
        return (episode if self._unit is Unit.EPISODE else None) or inference_id or targeting_key


def _arms(alias: Alias, split: Split, named: dict[str, Variant]) -> tuple[tuple[float, Assignment], ...]:
    """Each bucket's end with its variant's assignment, whose propensity is all of that variant's buckets together."""
    lengths: dict[str, float] = {}
    begin = 0.0
    for end, name in split.buckets:
        lengths[name] = lengths.get(name, 0.0) + end - begin
        begin = end
    made = {
        name: assignment(
            alias, named[name], Reason.SPLIT if length < 1 else Reason.STATIC, length, experiment=alias.experiment
        )
        for name, length in lengths.items()
    }
    return tuple((end, made[name]) for end, name in split.buckets)


def _digest(salt: str, tenant: str, key: str) -> bytes:
    return hashlib.sha256(f"{salt}:{tenant}:{key}".encode("utf-8", "surrogatepass")).digest()
