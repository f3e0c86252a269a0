"""Who sits on the engine, since when nobody uses them, and who has to go. Decisions only: it does nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from adapters.errors import InvalidRef
from adapters.ref import AdapterRef


class Occupancy:
    """`resident` are the versions that may be leased: loaded, and found well-behaved, in this worker's own eyes.

    `on_engine` is what the engine holds, resident or not. `in_use` says whether anyone wants or leases a version.
    """

    def __init__(self, in_use: Callable[[AdapterRef], bool], clock: Callable[[], float], *, grace: float) -> None:
        self.resident: set[AdapterRef] = set()
        self.on_engine: set[AdapterRef] = set()
        self._in_use, self._clock, self._grace = in_use, clock, grace
        self._idle_since: dict[AdapterRef, float] = {}

    def see(self, names: Iterable[str]) -> bool:
        """Take the engine's word for what it holds; whether a resident version turned out to be gone.

        Names that are no versions were put there by somebody else and are left alone.
        """
        self.on_engine = set(_refs(names))
        gone = self.resident - self.on_engine
        self.resident -= gone
        return bool(gone)

    def settle(self, ref: AdapterRef) -> None:
        """A version is resident from now on."""
        self.on_engine.add(ref)
        self.resident.add(ref)
        self.touch(ref)

    def touch(self, ref: AdapterRef) -> None:
        """A version was in use until now."""
        self._idle_since[ref] = self._clock()

    def remove(self, ref: AdapterRef) -> None:
        self.resident.discard(ref)
        self.on_engine.discard(ref)
        self._idle_since.pop(ref, None)

    def clear(self) -> None:
        self.resident.clear()
        self.on_engine.clear()
        self._idle_since.clear()

    def overdue(self) -> list[AdapterRef]:
        """The versions that nobody has used for longer than the grace."""
        now, found = self._clock(), []
        for ref in sorted(self.on_engine):
            if self._in_use(ref):
                self._idle_since.pop(ref, None)
            elif now - self._idle_since.setdefault(ref, now) >= self._grace:
                found.append(ref)
        return found

    def others(self, ref: AdapterRef) -> int:
        """How many versions besides this one the engine holds."""
        return len(self.on_engine - {ref})

    def idlest(self, ref: AdapterRef) -> AdapterRef | None:
        """The version, other than this one, that has been unused for longest; None when all are in use."""
        idle = (one for one in self.on_engine if one != ref and not self._in_use(one))
        return min(idle, key=lambda one: self._idle_since.get(one, 0.0), default=None)


def _refs(names: Iterable[str]) -> Iterable[AdapterRef]:
    for name in names:
        try:
            yield AdapterRef.parse(name)
        except InvalidRef:
            continue
