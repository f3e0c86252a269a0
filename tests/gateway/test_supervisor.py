"""`gateway serve` as one starts it, with the fake engine: what dies comes back, and it leaves in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

T = TypeVar("T")


@dataclass
class Serving:
    """A running `gateway serve`, with a tenant whose alias serves the base model."""

    process: subprocess.Popen[bytes]
    url: str
    home: Path
    key: str = ""

    def admin(self, method: str, path: str, body: object = None) -> httpx.Response:
        admin_key = (self.home / "admin.key").read_text().strip()
        return httpx.request(
            method,
            f"{self.url}/admin/v1{path}",
            json=body,
            headers={"authorization": f"Bearer {admin_key}"},
            timeout=30,
        )

    def ask(self, **extra: object) -> httpx.Response:
        body = {"model": "support", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, **extra}
        return httpx.post(
            f"{self.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {self.key}"}, timeout=30
        )

    def children(self, word: str) -> list[psutil.Process]:
        family = psutil.Process(self.process.pid).children(recursive=True)
        living = [child for child in family if child.status() != psutil.STATUS_ZOMBIE]
        return [child for child in living if word in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("serve")
    with start(home, "--workers", "2") as one:
        yield one


@contextmanager
def start(home: Path, *flags: str, **env: str) -> Iterator[Serving]:
    """`gateway serve` until the block ends, and then in order."""
    log = home / "serve.log"
    command = [sys.executable, "-m", "gateway", "serve", "--engine", "fake", "--port", "0", "--home", str(home), *flags]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stderr=out, env={**os.environ, **env})
    try:
        serving = Serving(process, until(lambda: listening(log)), home)
        until(lambda: reached(serving.url))
        assert serving.admin("POST", "/tenants", {"name": "acme"}).is_success
        made = serving.admin("POST", "/tenants/acme/keys", {"scopes": ["inference", "feedback"]})
        serving.key = made.json()["key"]
        base = {"variants": [{"name": "base", "weight": 1, "ref": "base"}]}
        assert serving.admin("PUT", "/tenants/acme/aliases/support", base).is_success
        yield serving
    finally:
        process.terminate()
        assert process.wait(60) == 0


def listening(log: Path) -> str | None:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return next((line["url"] for line in lines if line["message"] == "listening"), None)


def reached(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def until(look: Callable[[], T | None], seconds: float = 60) -> T:
    """The first truthy answer of `look`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def test_a_killed_worker_comes_back_and_the_engine_does_not_notice(serving: Serving) -> None:
    engine = serving.children("gateway.engine.fake")[0]
    before = {worker.pid for worker in serving.children("gateway.worker")}
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len({w.pid for w in serving.children("gateway.worker")} - before) == 1)
    assert {serving.ask().status_code for _ in range(50)} == {200}, "a worker took requests before it could serve"
    assert engine.is_running()
    until(lambda: len(serving.admin("GET", "/engine").json()["workers"]) == 2)


def test_a_killed_database_comes_back_and_known_keys_never_notice(serving: Serving) -> None:
    pid = int((serving.home / "postgres" / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGKILL)
    assert serving.ask().status_code == 200
    until(lambda: serving.admin("GET", "/tenants").status_code == 200)
    feedback = {"inference_id": serving.ask().json()["id"], "metric": "thumbs", "value": True}
    headers = {"authorization": f"Bearer {serving.key}"}
    until(lambda: httpx.post(f"{serving.url}/v1/feedback", json=feedback, headers=headers).status_code == 200)


def test_a_killed_engine_is_answered_with_503_until_it_is_back_and_never_with_nonsense(serving: Serving) -> None:
    os.kill(serving.children("gateway.engine.fake")[0].pid, signal.SIGKILL)
    seen = set()

    def back() -> bool:
        reply = serving.ask()
        seen.add(reply.status_code)
        assert reply.status_code == 200 or reply.json()["error"]["message"]
        return reply.status_code == 200

    until(back)
    assert seen <= {200, 502, 503}


def test_a_revoked_key_is_refused_by_every_worker_once_the_revocation_is_answered(serving: Serving) -> None:
    made = serving.admin("POST", "/tenants/acme/keys", {"scopes": ["inference"]}).json()
    mine = Serving(serving.process, serving.url, serving.home, made["key"])
    assert until(lambda: mine.ask() if mine.ask().status_code == 200 else None)
    assert serving.admin("DELETE", f"/tenants/acme/keys/{made['id']}").status_code in (200, 204)
    until(lambda: mine.ask().status_code == 401, 5)
    time.sleep(0.5)
    assert {mine.ask().status_code for _ in range(20)} == {401}


def test_a_second_gateway_in_the_same_home_is_refused_in_words(serving: Serving) -> None:
    command = [sys.executable, "-m", "gateway", "serve", "--engine", "fake", "--port", "0", "--home", str(serving.home)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert "another gateway runs in" in second.stderr


def test_a_database_that_cannot_be_reached_is_said_in_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "serve", "--engine", "fake", "--port", "0", "--home", str(tmp_path)]
    away = {"GATEWAY_DATABASE_URL": f"postgresql:///nobody?host={tmp_path}"}
    done = subprocess.run(command, env={**os.environ, **away}, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "gateway serve: The database cannot be reached."
    assert "Traceback" not in done.stderr


def test_sigterm_lets_an_open_stream_end_and_writes_what_was_recorded(tmp_path: Path) -> None:
    slow = '["--itl", "0.05", "--tokens", "40"]'
    with start(tmp_path, GATEWAY_ENGINE__ARGS=slow) as serving:
        body = {"model": "support", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 40}
        headers = {"authorization": f"Bearer {serving.key}"}
        with httpx.stream("POST", f"{serving.url}/v1/chat/completions", json=body, headers=headers) as reply:
            lines = reply.iter_lines()
            next(lines)
            serving.process.terminate()
            until(lambda: not reached(serving.url), 5)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert serving.process.wait(30) == 0
    log = (tmp_path / "serve.log").read_text()
    assert "Traceback" not in log
