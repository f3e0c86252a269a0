"""Versions that could not be made resident: why, and when to try again. It knows nothing of engines."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from adapters.ref import AdapterRef
from gateway.errors import Unavailable

FIRST_BACKOFF, LAST_BACKOFF = 2.0, 60.0


@dataclass(frozen=True, slots=True)
class _Failure:
    sentence: str
    until: float
    backoff: float


class Failures:
    """Remembered with a back-off that doubles from 2 to 60 seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[AdapterRef, _Failure] = {}

    def __contains__(self, ref: AdapterRef) -> bool:
        return ref in self._failures

    def sentences(self) -> dict[AdapterRef, str]:
        return {ref: failure.sentence for ref, failure in self._failures.items()}

    def remember(self, ref: AdapterRef, sentence: str) -> Unavailable | None:
        """Note a failure; returns what to tell a client."""
        before = self._failures.get(ref)
        backoff = min(LAST_BACKOFF, before.backoff * 2) if before is not None else FIRST_BACKOFF
        self._failures[ref] = _Failure(sentence, self._clock() + backoff, backoff)
        return self.due(ref)

    def due(self, ref: AdapterRef) -> Unavailable | None:
        """What to tell a client while the version must not be tried again; None when it may be.

        The sentence of the failure is for the operator (`failed` in the worker's report), not for every client.
        """
        failure = self._failures.get(ref)
        left = failure.until - self._clock() if failure is not None else 0.0
        if left <= 0:
            return None
        return Unavailable(
            f"The version `{ref}` cannot be served at the moment.",
            retry_after=math.ceil(left),
            code="model_unavailable",
        )

    def forgive(self, *refs: AdapterRef) -> None:
        """It works, or is worth a try at once."""
        for ref in refs:
            self._failures.pop(ref, None)

    def prune(self, wanted: Collection[AdapterRef]) -> None:
        """Forget what nobody wants and may be tried again anyway."""
        now = self._clock()
        for ref in [r for r, failure in self._failures.items() if r not in wanted and failure.until <= now]:
            del self._failures[ref]

    def clear(self) -> None:
        self._failures.clear()
