"""Who sits on the engine, since when nobody uses them, and who has to go. Decisions only: it does nothing itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from adapters.errors import InvalidRef
from adapters.ref import AdapterRef
from gateway.serving.leases import Seat
from gateway.snapshot import Current, Snapshot


class Wishes:
    """What the snapshot wants on the engine, worked out once for each snapshot."""

    def __init__(self, current: Current) -> None:
        self._current = current
        self._of: Snapshot | None = None
        self._wanted: frozenset[AdapterRef] = frozenset()
        self._spare: frozenset[AdapterRef] = frozenset()

    def wanted(self) -> frozenset[AdapterRef]:
        """All of it."""
        return self._now()._wanted

    def spare(self) -> frozenset[AdapterRef]:
        """Those among them that are wanted for shadow traffic only: they give way to any other."""
        return self._now()._spare

    def _now(self) -> Wishes:
        snapshot = self._current.snapshot
        if self._of is not snapshot:
            self._of, self._wanted = snapshot, snapshot.wanted()
            self._spare = snapshot.shadowing() - snapshot.serving() - snapshot.preparing
        return self


class Occupancy:
    """`seats` are the versions this worker deals with, `on_engine` is what the engine holds, whoever put it there.

    A resident seat may be leased: the version was loaded, and found well-behaved, in this worker's own eyes.
    `wanted` says whether anyone but this worker's leases needs a version to stay.
    """

    def __init__(self, wanted: Callable[[AdapterRef], bool], clock: Callable[[], float], *, grace: float) -> None:
        self.seats: dict[AdapterRef, Seat] = {}
        self.on_engine: set[AdapterRef] = set()
        self._wanted, self._clock, self._grace = wanted, clock, grace

    def resident(self) -> frozenset[AdapterRef]:
        return frozenset(ref for ref, seat in self.seats.items() if seat.resident)

    def leased(self) -> frozenset[AdapterRef]:
        return frozenset(ref for ref, seat in self.seats.items() if seat.leases)

    def is_resident(self, ref: AdapterRef) -> bool:
        seat = self.seats.get(ref)
        return seat is not None and seat.resident

    def in_use(self, ref: AdapterRef) -> bool:
        seat = self.seats.get(ref)
        return (seat is not None and seat.leases > 0) or self._wanted(ref)

    def see(self, names: Iterable[str]) -> bool:
        """Take the engine's word for what it holds; whether a resident version turned out to be gone.

        Names that are no versions were put there by somebody else and are left alone.
        """
        self.on_engine = set(_refs(names))
        gone = self.resident() - self.on_engine
        for ref in gone:
            self.remove(ref)
        return bool(gone)

    def settle(self, ref: AdapterRef) -> None:
        """A version is resident from now on."""
        self.on_engine.add(ref)
        seat = self.seats.setdefault(ref, Seat(ref, str(ref)))
        seat.resident, seat.idle_since = True, self._clock()

    def remove(self, ref: AdapterRef) -> None:
        """A version is not to be leased any more. Who leased it before still counts as using it."""
        self.on_engine.discard(ref)
        seat = self.seats.get(ref)
        if seat is not None:
            seat.resident = False
            if not seat.leases:
                del self.seats[ref]

    def clear(self) -> None:
        for ref in tuple(self.seats):
            self.remove(ref)
        self.on_engine.clear()

    def overdue(self) -> list[AdapterRef]:
        """The versions that nobody has used for longer than the grace."""
        now, found = self._clock(), []
        for ref in sorted(self.on_engine):
            seat = self.seats.setdefault(ref, Seat(ref, str(ref)))
            if self.in_use(ref):
                seat.idle_since = None
            elif seat.idle_since is None:
                seat.idle_since = now
            elif now - seat.idle_since >= self._grace:
                found.append(ref)
        return found

    def others(self, ref: AdapterRef) -> int:
        """How many versions besides this one the engine holds."""
        return len(self.on_engine - {ref})

    def idlest(self, ref: AdapterRef) -> AdapterRef | None:
        """The version, other than this one, that has been unused for longest; None when all are in use."""
        idle = (one for one in self.on_engine if one != ref and not self.in_use(one))
        return min(idle, key=self._idle_since, default=None)

    def _idle_since(self, ref: AdapterRef) -> float:
        seat = self.seats.get(ref)
        since = seat.idle_since if seat is not None else -math.inf
        return since if since is not None else math.inf  # in use until a moment ago


def _refs(names: Iterable[str]) -> Iterable[AdapterRef]:
    for name in names:
        try:
            yield AdapterRef.parse(name)
        except InvalidRef:
            continue
