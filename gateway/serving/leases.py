"""Leases: who uses which version. Counting only; it knows nothing of engines."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from adapters.ref import AdapterRef


class Lease:
    """A version in use (`None`: the base model, which is always there). Releasing twice is once."""

    __slots__ = ("_release", "ref")

    def __init__(self, ref: AdapterRef | None, release: Callable[[AdapterRef], None] | None) -> None:
        self.ref = ref
        self._release = release

    def release(self) -> None:
        if self._release is not None and self.ref is not None:
            release, self._release = self._release, None
            release(self.ref)

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Leases:
    """The counts. `freed(ref)` is called when the last lease of a version ends."""

    def __init__(self, freed: Callable[[AdapterRef], None]) -> None:
        self._counts: dict[AdapterRef, int] = {}
        self._freed = freed

    def take(self, ref: AdapterRef) -> Lease:
        self._counts[ref] = self._counts.get(ref, 0) + 1
        return Lease(ref, self._give_back)

    def __contains__(self, ref: AdapterRef) -> bool:
        return ref in self._counts

    def refs(self) -> frozenset[AdapterRef]:
        return frozenset(self._counts)

    def _give_back(self, ref: AdapterRef) -> None:
        left = self._counts[ref] - 1
        if left:
            self._counts[ref] = left
        else:
            del self._counts[ref]
            self._freed(ref)
