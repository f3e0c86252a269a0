"""Starts a real gateway as a user would, by its command line, and speaks to its admin API."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 300


class DemoFailed(Exception):
    """The demo cannot go on; the message says why and where to look."""


class Gateway:
    """A running gateway: its address, its process, and the admin API as plain calls that return parsed JSON."""

    def __init__(self, url: str, admin_key: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.admin_key = admin_key
        self.process = process
        self.http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {admin_key}"}, timeout=180)

    def call(self, method: str, path: str, body: Any = None, *, absent_ok: bool = False, taken_ok: bool = False) -> Any:
        """One admin call. Raises `DemoFailed` with the gateway's own sentence."""
        reply = self.http.request(method, f"/admin/v1{path}", json=body)
        if (reply.status_code == 404 and absent_ok) or (reply.status_code == 409 and taken_ok):
            return None
        if reply.is_error:
            raise DemoFailed(f"{method} {path} answered {reply.status_code}: {reply.text}")
        return reply.json() if reply.content else None

    def tenant(self, name: str, *, store_content: bool) -> None:
        """Create the tenant unless it is there."""
        self.call("POST", "/tenants", {"name": name, "store_content": store_content}, taken_ok=True)

    def key(self, tenant: str, scopes: list[str]) -> str:
        """A new API key."""
        return str(self.call("POST", f"/tenants/{tenant}/keys", {"scopes": scopes})["key"])

    def point(self, tenant: str, alias: str, variants: dict[str, tuple[float, str]]) -> Any:
        """Set an alias's variants: name → (weight, ref)."""
        rows = [{"name": name, "weight": weight, "ref": ref} for name, (weight, ref) in variants.items()]
        return self.call("PUT", f"/tenants/{tenant}/aliases/{alias}", {"variants": rows})


@contextmanager
def running(
    home: Path,
    *,
    base_model: str,
    model_path: Path,
    port: int | None = None,
    say: Callable[[str], None],
    engine: Sequence[str] = ("--engine", "vllm"),
    settings: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    """`gateway serve` in `home`, ready for traffic; `say` is told what is being waited for.

    `engine` are its flags about the engine; `settings` are further variables, which win over the demo's own.
    """
    port = port or _free_port()
    home.mkdir(parents=True, exist_ok=True)
    log = home / "gateway.log"
    command = [
        *(sys.executable, "-m", "gateway", "serve", "--home", str(home), "--port", str(port)),
        *(*engine, "--base-model", base_model, "--model-path", str(model_path)),
    ]
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=_environment() | dict(settings or {}))
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url, log, say)
        yield Gateway(url, (home / "admin.key").read_text().strip(), process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _environment() -> dict[str, str]:
    """Ours, made for a small model on a small machine: little KV space, and nothing fetched from a hub."""
    args = '["--max-model-len", "1024", "--max-num-seqs", "32"]'
    return {**os.environ, "GATEWAY_ENGINE__ARGS": args, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, say: Callable[[str], None]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoFailed(f"the gateway ended with status {process.returncode}: see {log}")
        try:
            reply = httpx.get(f"{url}/readyz", timeout=5)
            if reply.status_code == 200:
                return
            say(str(reply.json()["error"]["message"]))
        except (httpx.HTTPError, ValueError, KeyError):
            say("starting PostgreSQL and the gateway")
        time.sleep(0.5)
    raise DemoFailed(f"the gateway was not ready after {START_SECONDS} s: see {log} and {log.parent / 'logs'}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
