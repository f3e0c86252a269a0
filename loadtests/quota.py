"""Gives each of some processes a fixed share of one core, so that a small machine has room for a load generator beside
them: what several workers do can then be compared with what one does.

By the kernel's CPU controller (cgroup v2's `cpu.max`, v1's `cpu.cfs_quota_us`) where this user may write there, else by
stopping and continuing the processes a hundred times a second.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

PERIOD_US = 10_000
"""Short, so that a worker is never away for longer than most of 10 ms."""
V2, V1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")


@contextmanager
def limited(pids: Sequence[int], share: float) -> Iterator[str]:
    """Each process gets `share` of one core for the length of the block; says by which means."""
    with ExitStack() as stack:
        try:
            for pid in pids:
                means = stack.enter_context(_group(pid, share))
        except OSError:
            stack.close()
            means = stack.enter_context(_turns(pids, share))
        yield means


@contextmanager
def _group(pid: int, share: float) -> Iterator[str]:
    """A control group of its own for one process. Raises OSError where that is not allowed."""
    modern = (V2 / "cgroup.controllers").exists()
    root = V2 if modern else V1
    group, quota = root / f"loadtests-{pid}", int(PERIOD_US * share)
    home = _current(pid, root, modern=modern)
    group.mkdir()
    try:
        if modern:
            (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        (group / "cgroup.procs").write_text(str(pid))
        yield f"cgroup v{2 if modern else 1}"
    finally:
        with contextlib.suppress(OSError):  # it ended meanwhile
            (home / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _current(pid: int, root: Path, *, modern: bool) -> Path:
    """The group that a process is in now."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (modern and not controllers) or (not modern and "cpu" in controllers.split(",")):
            return root / path.lstrip("/")
    return root


@contextmanager
def _turns(pids: Sequence[int], share: float) -> Iterator[str]:
    """SIGCONT for a part of each period, SIGSTOP for the rest."""
    over = threading.Event()

    def switch() -> None:
        period = PERIOD_US / 1e6
        while not over.is_set():
            _signal(pids, signal.SIGCONT)
            time.sleep(period * share)
            _signal(pids, signal.SIGSTOP)
            time.sleep(period * (1 - share))

    thread = threading.Thread(target=switch, daemon=True)
    thread.start()
    try:
        yield "SIGSTOP and SIGCONT"
    finally:
        over.set()
        thread.join()
        _signal(pids, signal.SIGCONT)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
