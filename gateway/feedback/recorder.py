"""Remembers inferences without ever making one wait: a bounded queue in memory, written in batches.

While the database is away the queue fills and batches are retried with back-off; what no longer fits is dropped and
counted. It knows nothing of SQL or HTTP: the writer is handed in, and what makes a row of an inference.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

from gateway.domain import Inference
from gateway.errors import GatewayError

log = logging.getLogger("gateway.recorder")

BATCH = 500
"""Rows in one statement: more make the event loop stall for longer (500: half a millisecond) and gain nothing."""
LINGER_SECONDS = 0.2
"""A row is written about this long after its answer; feedback does not wait for it (early feedback is accepted)."""
FIRST_BACKOFF, LAST_BACKOFF = 0.1, 5.0


class Gauges(Protocol):
    """Where the recorder shows itself."""

    def observe(self, name: str, read: Callable[[], float], *, counter: bool = False) -> None: ...


class Recorder:
    """`record` from the data plane, `run` in the background, `drain` on the way out.

    `pending`: in memory, not yet written. `written` and `dropped` count since the start; `rejected` are those among the
    dropped that the database will never take.
    """

    def __init__(
        self,
        write: Callable[[Sequence[bytes]], Awaitable[None]],
        as_row: Callable[[Inference], bytes],
        *,
        capacity: int = 20_000,
        telemetry: Gauges | None = None,
    ) -> None:
        self._write, self._as_row = write, as_row
        self._capacity = capacity
        self._queue: deque[tuple[str, bytes]] = deque()  # ids and rows
        self._filled = asyncio.Event()
        self._flushed = asyncio.Event()
        self._hurry = asyncio.Event()
        self.written = 0
        self.dropped = 0
        self.rejected = 0
        if telemetry is not None:
            telemetry.observe("tuneloop.recorder.pending", lambda: self.pending)
            telemetry.observe("tuneloop.recorder.written", lambda: self.written, counter=True)
            telemetry.observe("tuneloop.recorder.dropped", lambda: self.dropped, counter=True)

    @property
    def pending(self) -> int:
        """Inferences in memory only."""
        return len(self._queue)

    def record(self, inference: Inference) -> None:
        """Take one. When the queue is full this one is dropped: the older ones are likelier to have feedback coming."""
        if len(self._queue) >= self._capacity:
            self.dropped += 1
            return
        try:
            self._queue.append((inference.id, self._as_row(inference)))
        except Exception as error:
            self._reject(inference.id, error)
        else:
            self._filled.set()

    async def run(self) -> None:
        """Write until cancelled."""
        backoff = FIRST_BACKOFF
        while True:
            await self._filled.wait()
            if len(self._queue) < BATCH:
                await self._linger(LINGER_SECONDS)
            if await self._flush_one():
                backoff = FIRST_BACKOFF
            else:
                await self._linger(backoff)
                backoff = min(LAST_BACKOFF, backoff * 2)
            if not self._queue:
                self._filled.clear()

    async def drain(self, seconds: float) -> None:
        """Give the queue up to `seconds` to be written. Call it while `run` still runs and nothing records any more."""
        self._hurry.set()
        try:
            async with asyncio.timeout(seconds):
                while self._queue:
                    self._flushed.clear()
                    await self._flushed.wait()
        except TimeoutError:
            log.error("inferences not written before the end", extra={"pending": len(self._queue)})

    async def _linger(self, seconds: float) -> None:
        if self._hurry.is_set():
            await asyncio.sleep(min(seconds, FIRST_BACKOFF))
            return
        # Not wait_for: up to Python 3.11 it loses a cancellation that comes together with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def _flush_one(self) -> bool:
        """Write one batch; false when the database is away. A batch leaves the queue only once it is written."""
        batch = list(islice(self._queue, BATCH))
        try:
            await self._write([row for _, row in batch])
            self.written += len(batch)
        except GatewayError as error:
            log.warning("inferences not written yet", extra={"reason": error.message, "pending": len(self._queue)})
            return False
        except Exception as error:
            # One row that the database refuses must not stop the others for ever: find it by writing them one by one.
            log.warning("a batch of inferences was refused", extra={"error": type(error).__name__})
            if not await self._one_by_one(batch):
                return False
        for _ in batch:
            self._queue.popleft()
        self._flushed.set()
        return True

    async def _one_by_one(self, batch: list[tuple[str, bytes]]) -> bool:
        written, rejected = 0, list[tuple[str, Exception]]()
        for name, row in batch:
            try:
                await self._write([row])
                written += 1
            except GatewayError:
                return False  # the whole batch again: writing is idempotent
            except Exception as error:
                rejected.append((name, error))
        self.written += written
        for name, why in rejected:
            self._reject(name, why)
        return True

    def _reject(self, name: str, error: Exception) -> None:
        # Without the error's text: a database quotes the row, and a row may hold a prompt.
        log.error("an inference cannot be written", extra={"inference": name, "error": type(error).__name__})
        self.rejected += 1
        self.dropped += 1
