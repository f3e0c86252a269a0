"""Wakes an event loop at a given moment, to the microsecond: libuv's timers know milliseconds only, and an open loop
that rounds its arrivals to them measures its own clock.

A Linux timerfd through ctypes (Python has it from 3.13 on); elsewhere the loop's own timer.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable

_ABSOLUTE = 1
_NONBLOCK = 0o4000
_MONOTONIC = 1


class _Spec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("s", ctypes.c_long),
        ("ns", ctypes.c_long),
    )


class Alarm:
    """Calls `ring` in the loop at the moment that was `set`, once; `time.monotonic` is the clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = -1
        if hasattr(self._libc, "timerfd_create"):
            self._file = self._libc.timerfd_create(_MONOTONIC, _NONBLOCK)
        if self._file >= 0:
            loop.add_reader(self._file, self._due)

    def set(self, moment: float) -> None:
        """Ring at `moment`; at once if that is over."""
        if self._file < 0:
            self._loop.call_later(max(0.0, moment - time.monotonic()), self._ring)
            return
        whole = max(1, int(moment * 1e9))
        spec = _Spec(0, 0, whole // 10**9, whole % 10**9)
        self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(spec), None)

    def _due(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # set anew between the two
            return
        self._ring()

    def close(self) -> None:
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1
