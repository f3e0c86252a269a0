"""A gateway to load: started as a user would start it, with its defaults, in front of the mock or the shipped fake
engine; or one that runs elsewhere. Beyond its command line and its HTTP interface nothing of it is known here.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from loadtests.adapter import tar_of_an_adapter
from loadtests.asks import Address
from loadtests.crew import Say

START_SECONDS = 120
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

Engine = Literal["mock", "fake"]


class LoadTestFailed(Exception):
    """The run cannot go on; the message says why and where to look."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What is started. `mock` are further options of the mock (`--itl 0.2`), `env` of the gateway."""

    engine: Engine = "mock"
    workers: int = 1
    mock: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    home: Path | None = None
    engine_url: str | None = None
    """An engine that runs already, instead of `engine`."""


class Installation:
    """A running gateway, and its admin API as plain calls that return parsed JSON."""

    def __init__(self, address: Address, admin_key: str, *, pid: int | None = None, home: Path | None = None) -> None:
        self.address, self.admin_key, self.pid, self.home = address, admin_key, pid, home
        self.url = address.url
        self.http = httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {admin_key}"}, timeout=120)

    def call(self, method: str, path: str, body: Any = None, *, taken_ok: bool = False) -> Any:
        """One admin call. Raises `LoadTestFailed` with the gateway's own sentence."""
        reply = self.http.request(method, f"/admin/v1{path}", json=body)
        return self._read(f"{method} {path}", reply, taken_ok=taken_ok)

    def _read(self, what: str, reply: httpx.Response, *, taken_ok: bool = False) -> Any:
        if reply.status_code == 409 and taken_ok:
            return None
        if reply.is_error:
            raise LoadTestFailed(f"{what} answered {reply.status_code}: {reply.text}")
        return reply.json() if reply.content else None

    def tenant(self, name: str, **options: Any) -> str:
        """Create the tenant unless it is there; returns a new key of it."""
        self.call("POST", "/tenants", {"name": name, **options}, taken_ok=True)
        return str(self.call("POST", f"/tenants/{name}/keys", {})["key"])

    def adapter(self, tenant: str, name: str, *, seed: int) -> str:
        """Upload a version with random weights; returns its name, `tenant/name@version`."""
        reply = self.http.post(
            f"/admin/v1/tenants/{tenant}/adapters",
            params={"name": name},
            content=tar_of_an_adapter(BASE_MODEL, seed=seed),
            headers={"content-type": "application/x-tar"},
        )
        return str(self._read(f"upload of {tenant}/{name}", reply)["ref"])

    def alias(self, tenant: str, alias: str, variants: Mapping[str, tuple[float, str]]) -> Any:
        """Point an alias to name → (weight, ref)."""
        rows = [{"name": name, "weight": weight, "ref": ref} for name, (weight, ref) in variants.items()]
        return self.call("PUT", f"/tenants/{tenant}/aliases/{alias}", {"variants": rows})


@contextmanager
def installed(setup: Setup, *, say: Say) -> Iterator[Installation]:
    """Start an engine and a gateway in front of it, ready for traffic; both end with the block."""
    with ExitStack() as stack:
        home = setup.home or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="tl-load-", ignore_cleanup_errors=True))
        )
        home.mkdir(parents=True, exist_ok=True)
        engine = ["--engine-url", setup.engine_url] if setup.engine_url else ["--engine", "fake"]
        if setup.engine == "mock" and not setup.engine_url:
            uds = str(home / "mock.sock")
            stack.enter_context(started(mock_command("--uds", uds, *setup.mock), home / "mock.log"))
            engine = ["--engine-url", f"unix:{uds}"]
        port = free_port()
        command = [sys.executable, "-m", "gateway", "serve", "--home", str(home), "--port", str(port)]
        command += ["--workers", str(setup.workers), "--base-model", BASE_MODEL, *engine]
        log = home / "gateway.log"
        process = stack.enter_context(started(command, log, env={**os.environ, **setup.env}))
        _wait_until_ready(process, f"http://127.0.0.1:{port}", log, workers=setup.workers, say=say)
        key = (home / "admin.key").read_text().strip()
        yield Installation(Address("127.0.0.1", port), key, pid=process.pid, home=home)


def mock_command(*options: str) -> list[str]:
    """The mock as a process of its own."""
    return [sys.executable, "-m", "loadtests.mock", "--base-model", BASE_MODEL, *options]


@contextmanager
def started(
    command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the length of a block: SIGTERM at its end, SIGKILL to its group if it does not heed that."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=cwd, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(45)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, *, workers: int, say: Say) -> None:
    """Until so many answers in a row say that the worker they reached is ready."""
    deadline, good = time.monotonic() + START_SECONDS, 0
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LoadTestFailed(f"the gateway ended with status {process.returncode}: {_tail(log)}")
        try:
            reply = httpx.get(f"{url}/readyz", timeout=5)  # a new connection each time: another worker, perhaps
            good = good + 1 if reply.status_code == 200 else 0
            if good >= (1 if workers == 1 else 8 * workers):
                return
            say("waiting for the gateway to be ready")
        except httpx.HTTPError:
            good = 0
            say("starting PostgreSQL and the gateway")
        time.sleep(0.02 if good else 0.3)
    raise LoadTestFailed(f"the gateway was not ready after {START_SECONDS} s: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def end_on_sigterm() -> None:
    """SIGTERM unwinds the program as Ctrl-C does: what it started runs in sessions of their own and would stay."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
