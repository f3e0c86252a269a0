"""Seats and leases: one version's place on the engine, and its uses. Counting only; it knows nothing of engines."""

from __future__ import annotations

from types import TracebackType

from adapters.ref import AdapterRef


class Seat:
    """One version as this worker knows it. `resident`: it may be leased; `idle_since`: the clock's seconds, or None."""

    __slots__ = ("idle_since", "leases", "name", "ref", "resident")

    def __init__(self, ref: AdapterRef | None, name: str) -> None:
        self.ref = ref
        self.name = name
        self.resident = False
        self.leases = 0
        self.idle_since: float | None = None


class Lease:
    """A version in use (a seat without a ref is the base model's, always there). Releasing twice is once."""

    __slots__ = ("_held", "seat")

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self._held = True
        seat.leases += 1
        seat.idle_since = None

    @property
    def ref(self) -> AdapterRef | None:
        return self.seat.ref

    def release(self) -> None:
        if self._held:
            self._held = False
            self.seat.leases -= 1

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
