"""A Unix session as one thing that can be started on a leash, watched and ended, grandchildren included.

An engine is several processes: vLLM's API server starts EngineCore, which starts workers. Killing the first leaves the
others alive with the model in memory, so whoever owns an engine owns its session. It knows nothing of engines; it reads
/proc, so on a system without one it can end only the first process's group.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

_LEASH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]): sys.exit("the supervisor has died")
try: os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error: sys.exit(f"cannot run {sys.argv[2]}: {error.strerror}")
"""
# PR_SET_PDEATHSIG survives exec, not fork: the kernel kills the first process with us, its children must ask themselves
# (`plugin.die_with_parent`). In a process of its own rather than a preexec_fn, which may deadlock beside threads.


@dataclass(frozen=True, slots=True)
class Member:
    """One living process of a session; `started` is in clock ticks since the machine's boot."""

    pid: int
    started: int


def leashed(command: list[str]) -> list[str]:
    """`command` such that the kernel kills it when the calling thread's process dies (Linux; elsewhere unchanged)."""
    if not sys.platform.startswith("linux"):
        return command
    return [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]


def members(session: int) -> list[Member]:
    """The living processes of a session; zombies have left."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            # The second field is the name in brackets, and may hold anything: what follows the last bracket is fixed.
            fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            state, its_session, started = fields[0], int(fields[3]), int(fields[19])
            if its_session == session and state not in "ZX":
                found.append(Member(int(entry.parent.name), started))
    return found


async def end(session: int, *, patience: float) -> int:
    """Wait `patience` seconds for a session to end by itself, then kill it; returns how many had to be killed.

    The patience lets Python's resource tracker, which outlives its clients, remove their shared memory.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    killed: set[int] = set()
    while left := members(session):
        if loop.time() >= deadline:
            for member in left:
                killed.add(member.pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)
        if loop.time() >= deadline + 30:  # in the kernel, uninterruptible: nothing more that we can do
            break
        await asyncio.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, signal.SIGKILL)
    return len(killed)


class Record:
    """The session of an engine, noted in a file, so that the next life can end what a `kill -9` left of this one."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def write(self, session: int) -> None:
        """Note a session that has just begun; its first process has the session's number."""
        started = next((m.started for m in members(session) if m.pid == session), None)
        self._file.write_text(json.dumps({"session": session, "started": started, "boot": _boot()}))

    def clear(self) -> None:
        """The session has ended."""
        self._file.unlink(missing_ok=True)

    async def reap(self) -> int:
        """End what is left of the noted session; returns how many processes that were.

        Numbers are reused: it is still ours only since the same boot of the machine, and only if its first process is
        the one noted, or is gone and nobody in the session is older (a number is not reused while its session lives).
        """
        try:
            note = json.loads(self._file.read_text())
            session, started, boot = int(note["session"]), int(note["started"]), note["boot"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        left = members(session) if boot == _boot() else []
        first = next((m.started for m in left if m.pid == session), started)
        if first != started or any(m.started < started for m in left):
            left = []
        if left:
            await end(session, patience=0)
        self.clear()
        return len(left)


def _boot() -> str | None:
    """Which boot of the machine this is; None where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
