"""A table of counters that all workers of a host share, so that what one of them counts holds for every one.

It is anonymous memory (a memfd) that the supervisor makes and each worker maps. Not a file on a disk: while the kernel
writes a mapped file's page back, whoever touches that page waits, and a full disk would turn a counter into SIGBUS.
One lock (flock) guards the table; a worker that is killed drops it with its descriptors. What a worker has under way
stands in columns of its own as well, so that its death gives exactly that back. With one worker there is nobody to
lock out, and the table only lets the counters outlive it. It knows nothing of limits: numbered cells, floats (whole
numbers are exact up to 2**53), which start at zero.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
import time
from collections.abc import MutableSequence
from hashlib import blake2b
from typing import NamedTuple, TypeAlias

log = logging.getLogger("gateway.ledger")

Cells: TypeAlias = "MutableSequence[float] | memoryview[float]"

TAG, RUNNING, HELD, REQUESTS, REQUESTS_AT, RPM, TOKENS, TOKENS_AT, TPM, DAY, DAY_TOKENS, MONTH, MONTH_TOKENS = range(13)
"""A slot's cells. `REQUESTS_AT` is the monotonic moment of its last use: a slot is taken from who does not use it."""

STRIDE = 16
HEAD = 16
"""Cells before the first slot: the first two hold the numbers of workers and of sets."""

WAYS = 8
"""An account lies in one of the few slots its name leads to, so looking for it is bounded, and so is making room."""
SETS = 4096
"""32,768 slots of 128 bytes, in pages that come with their first use."""
IDLE_SECONDS = 120.0
"""A minute's limits have refilled after 60 s without use, so nothing is lost with a slot that is older."""

SPIN_SECONDS = 0.02
FROZEN_SECONDS = 1.0
"""The lock is held for microseconds. Whoever holds it longer is frozen (SIGSTOP, a debugger) and must not stop the
others: after a wait they go on without it, for a second without waiting again. Counts can then be off by one request
for each worker."""


class Place(NamedTuple):
    """An account's slot: `cells[RUNNING]` is what runs in all workers, `own[0]` this worker's part of it, and `own[1]`
    its part of `cells[HELD]`. `own` is None where the worker is the only one, and has no need of it."""

    cells: Cells
    own: Cells | None


class Ledger:
    """Make one with `create`, or map a supervisor's with `attach`. `shared`: there are other workers, so hold the lock
    around every use of a place."""

    def __init__(self, fd: int, index: int) -> None:
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.cells = memoryview(self._map).cast("d")
        self.fd, self.index = fd, index
        self.workers, self.sets = int(self.cells[0]), int(self.cells[1])
        self._slots = self.sets * WAYS
        self.shared = self.workers > 1
        # flock belongs to an open file, and a descriptor that was handed over shares its parent's.
        self._lock = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        self._frozen_until = 0.0

    @classmethod
    def create(cls, workers: int = 1, *, sets: int = SETS) -> Ledger:
        """A new table for `workers` workers, as its first one sees it. Hand `fd` on to those that are to map it."""
        fd = os.memfd_create("tuneloop-ledger")
        columns = 2 * workers if workers > 1 else 0
        os.ftruncate(fd, 8 * (HEAD + sets * WAYS * (STRIDE + columns)))
        os.pwrite(fd, struct.pack("dd", workers, sets), 0)
        return cls(fd, 0)

    @classmethod
    def attach(cls, fd: int, index: int) -> Ledger:
        """The table behind `fd` as the worker `index` (0, 1, …) sees it. It has nothing under way yet."""
        ledger = cls(fd, index)
        ledger.clear(index)
        return ledger

    def lock(self) -> None:
        """Wait for the lock, a few microseconds as a rule and `SPIN_SECONDS` at most."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._spin()

    def unlock(self) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _spin(self) -> None:
        now = time.monotonic()
        until = now + SPIN_SECONDS if now >= self._frozen_until else now
        while now < until:
            os.sched_yield()
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
            else:
                return
        if now >= self._frozen_until:
            log.warning("a worker holds the limits' lock and does not move: the others go on without it")
            self._frozen_until = now + FROZEN_SECONDS

    def place(self, account: str, now: float) -> Place:
        """The account's slot, made if need be. Call it with the lock held.

        Where all the slots it could have are in use, its counters are this worker's alone from now on.
        """
        cells, tag = self.cells, tag_of(account)
        first = HEAD + int(tag) % self.sets * WAYS * STRIDE
        idle = None
        for base in range(first, first + WAYS * STRIDE, STRIDE):
            found = cells[base]
            if found == tag:
                return self._at(base)
            if found == 0.0:
                idle = base
                break
            if cells[base + RUNNING] == 0.0 and cells[base + REQUESTS_AT] < now - IDLE_SECONDS:
                idle = base
        if idle is None:
            log.warning("the table of limits is full: one more account is limited by each worker on its own")
            return Place([tag, *[0.0] * (STRIDE - 1)], None)
        for cell in range(idle + 1, idle + STRIDE):
            cells[cell] = 0.0
        cells[idle + REQUESTS_AT] = now
        cells[idle] = tag
        return self._at(idle)

    def clear(self, index: int) -> None:
        """Give back what a worker had under way: it is gone, or begins. Exact, wherever in its work it was killed."""
        for what in (RUNNING, HELD):
            mine = self._column(index, what)
            values = mine.tolist()
            if any(values):
                left = [slot for slot, value in enumerate(values) if value]
                others = [self._column(worker, what) for worker in range(self.workers) if worker != index]
                self._give_back(what, mine, others, left)

    def _give_back(self, what: int, mine: memoryview[float], others: list[memoryview[float]], slots: list[int]) -> None:
        cells = self.cells
        self.lock()
        try:
            for slot in slots:
                cells[HEAD + slot * STRIDE + what] = sum(column[slot] for column in others)
                mine[slot] = 0.0
        finally:
            self.unlock()

    def _column(self, worker: int, what: int) -> memoryview[float]:
        """A worker's part of the cell `what` of all slots. An only worker's part is the cell itself."""
        if not self.shared:
            return self.cells[HEAD + what : HEAD + STRIDE * self._slots : STRIDE]
        start = HEAD + self._slots * (STRIDE + 2 * worker)
        return self.cells[start + (what == HELD) : start + 2 * self._slots : 2]

    def _at(self, base: int) -> Place:
        cells = self.cells
        own = None
        if self.shared:
            start = HEAD + self._slots * (STRIDE + 2 * self.index) + 2 * ((base - HEAD) // STRIDE)
            own = cells[start : start + 2]
        return Place(cells[base : base + STRIDE], own)

    def close(self) -> None:
        """Close the descriptors. The memory goes with the last place in it."""
        os.close(self._lock)
        os.close(self.fd)


def tag_of(account: str) -> float:
    """52 bits of the account's hash, as a float above zero: two of 10,000 accounts have one tag once in 10**8."""
    return float(1 + (int.from_bytes(blake2b(account.encode(), digest_size=8).digest()) >> 12))
