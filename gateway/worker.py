"""One worker: uvicorn around the app, on a listening socket that the supervisor opened.

    python -m gateway.worker FD LEDGER INDEX

LEDGER is the descriptor of the table that all workers count limits in, INDEX this worker's column of it (0, 1, …).

It leaves in order: readiness fails first, then the socket closes, then open streams get `drain_seconds`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
from types import FrameType
from typing import Any, cast

import uvicorn

from gateway import settings as settings_module
from gateway.app import App
from gateway.serving.ledger import Ledger
from gateway.telemetry import configure_logging

PR_SET_PDEATHSIG = 1
BACKLOG = 2048
SWITCH_SECONDS = 0.0005
"""How long another thread (one that encodes metrics, say) may keep the event loop from running, at each of its turns.
Python's own 5 ms came to 50 at the 99th percentile."""
NOTICE_SECONDS = 0.5
"""Between failing readiness and closing the door: what a load balancer on the same host needs to look away."""


class _Server(uvicorn.Server):
    """uvicorn, which on SIGTERM tells the app first."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        app = self.config.app
        if not isinstance(app, App) or app.draining:  # a second signal means now
            super().handle_exit(sig, frame)
            return
        app.drain()
        app.loop.call_later(NOTICE_SECONDS, super().handle_exit, sig, frame)


def main(descriptor: int, ledger: int, index: int) -> None:
    """Serve until told to stop."""
    _die_with_parent()
    _open_many_files()
    sys.setswitchinterval(SWITCH_SECONDS)
    configure_logging()
    settings = settings_module.load()
    app = App(settings, Ledger.attach(ledger, index))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=cast(Any, app.front),
        proxy_headers=False,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )
    _Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _die_with_parent() -> None:
    """Without its supervisor a worker has no engine: the kernel sends it SIGTERM when the parent is gone."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _open_many_files() -> None:
    """A stream takes two sockets, and many systems allow a process 1,024 files where it does not ask for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
