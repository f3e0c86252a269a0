"""Several client processes that start at the same moment, report how far they are, and hand back what they measured.

A program is anything with `async run(line) -> Samples` that can be pickled. It knows nothing of HTTP.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Protocol

import uvloop

from loadtests.client import Line
from loadtests.descriptors import raise_limit
from loadtests.samples import Samples

HEAD_START = 0.1
"""Seconds between the last process's readiness and the start."""

Say = Callable[[str], None]


class Program(Protocol):
    """What one process does."""

    async def run(self, line: Line) -> Samples: ...


class CrewFailed(Exception):
    """A client process could not do its work; the message has its traceback."""


class _Pipe:
    """The child's side."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def ready(self) -> float:
        self.pipe.send(("ready", None))
        return float(self.pipe.recv())

    def progress(self, done: int, failed: int, under_way: int) -> None:
        self.pipe.send(("progress", (done, failed, under_way)))


def _child(program: Program, pipe: Connection) -> None:
    raise_limit()
    try:
        pipe.send(("samples", uvloop.run(program.run(_Pipe(pipe)))))
    except BaseException:  # whatever it was, the parent is to know
        pipe.send(("failed", traceback.format_exc()))
    finally:
        pipe.close()


def run(
    programs: Sequence[Program], *, say: Say, during: Callable[[float], None] | None = None
) -> tuple[Samples, float]:
    """Run each program in a process of its own; returns all samples and the start (monotonic).

    `during(start)` runs beside them in a thread, and is waited for. Raises `CrewFailed`, or what `during` raised.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    for program in programs:
        ours, theirs = context.Pipe()
        process = context.Process(target=_child, args=(program, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        for pipe in pipes:
            _expect(pipe, "ready")
        start = time.monotonic() + HEAD_START
        for pipe in pipes:
            pipe.send(start)
        beside = _Beside(during, start)
        samples = _collect(pipes, start, say)
        beside.join()
        return Samples.merged(samples), start
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()


class _Beside(threading.Thread):
    """`during`, and the exception it ended with."""

    def __init__(self, during: Callable[[float], None] | None, start: float) -> None:
        super().__init__(daemon=True)
        self._during, self._moment = during, start
        self._failure: BaseException | None = None
        if during is not None:
            self.start()

    def run(self) -> None:
        assert self._during is not None
        try:
            self._during(self._moment)
        except BaseException as failure:  # raised again in `join`, by who waits
            self._failure = failure

    def join(self, timeout: float | None = None) -> None:
        if self._during is not None:
            super().join(timeout)
        if self._failure is not None:
            raise self._failure


def _expect(pipe: Connection, kind: str) -> object:
    try:
        said, what = pipe.recv()
    except EOFError:
        raise CrewFailed("a client process died") from None
    if said == "failed":
        raise CrewFailed(str(what))
    assert said == kind
    return what


def _collect(pipes: list[Connection], start: float, say: Say) -> list[Samples]:
    """Read progress until every process has handed in its samples."""
    found: list[Samples] = []
    latest = dict.fromkeys(pipes, (0, 0, 0))
    open_pipes = list(pipes)
    while open_pipes:
        for ready in wait(open_pipes, timeout=1.0):
            assert isinstance(ready, Connection)
            try:
                kind, what = ready.recv()
            except EOFError:
                raise CrewFailed("a client process died") from None
            if kind == "failed":
                raise CrewFailed(what)
            if kind == "samples":
                found.append(what)
                open_pipes.remove(ready)
            else:
                latest[ready] = what
        done, failed, under_way = (sum(column) for column in zip(*latest.values(), strict=True))
        passed = max(0.0, time.monotonic() - start)
        say(f"{passed:5.0f} s · {done:,} done · {failed:,} failed · {under_way:,} under way")
    return found
