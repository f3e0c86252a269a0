"""Everything that is measured, running at the same time in front of the same mock: the mock itself, the bare proxy, the
gateway with everything on, and the peers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from loadtests.asks import Address
from loadtests.crew import Say
from loadtests.installation import BASE_MODEL, LoadTestFailed, Setup, free_port, installed, mock_command, started
from loadtests.meter import Meter
from loadtests.peers.programs import PEERS, Peer, environment

LIMITS = {
    "requests_per_minute": 10**8,
    "tokens_per_minute": 10**12,
    "concurrent_requests": 10**6,
    "tokens_per_day": 10**15,
}
"""Set, and checked on every request; never reached."""
GATEWAY, MOCK, BARE = "tuneloop", "mock", "bare"


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers. `meter` is None for the mock, whose cost is nobody's concern."""

    name: str
    about: str
    address: Address
    model: str
    key: str | None = None
    meter: Meter | None = None


@contextmanager
def running(names: Sequence[str], *, cache: Path, home: Path, say: Say) -> Iterator[list[Target]]:
    """Start the mock and those of the targets that are named; all end with the block."""
    with ExitStack() as stack:
        address = _line_of(stack, mock_command("--port", "0"), home / "mock.log")
        upstream = Address.parse(address)
        targets = [Target(MOCK, "the upstream itself", upstream, BASE_MODEL)]
        if BARE in names:
            targets.append(_bare(stack, address, home))
        if GATEWAY in names:
            targets.append(_gateway(stack, address, home, say))
        chosen = [peer for peer in PEERS if peer.name in names]
        targets += [_peer(stack, peer, address, cache=cache, home=home, say=say) for peer in chosen]
        yield targets


def _bare(stack: ExitStack, upstream: str, home: Path) -> Target:
    port = free_port()
    command = [sys.executable, "-m", "loadtests.peers.bare", "--port", str(port), "--upstream", upstream]
    process = stack.enter_context(started(command, home / "bare.log"))
    target = Target(BARE, "nothing on, our stack", Address("127.0.0.1", port), BASE_MODEL, meter=Meter(process.pid))
    _answers(target, process, home / "bare.log", seconds=30)
    return target


def _gateway(stack: ExitStack, upstream: str, home: Path, say: Say) -> Target:
    """Defaults: PostgreSQL, recording, metrics, one trace in ten, exported to the sink. A tenant with limits; an alias
    with two variants, one of them an adapter."""
    sink = _line_of(stack, [sys.executable, "-m", "loadtests.peers.sink"], home / "sink.log")
    setup = Setup(engine_url=upstream, home=home / "gateway", env={"OTEL_EXPORTER_OTLP_ENDPOINT": sink})
    gateway = stack.enter_context(installed(setup, say=say))
    key = gateway.tenant("peers", limits=LIMITS)
    version = gateway.adapter("peers", "support", seed=1)
    gateway.alias("peers", "support", {"base": (1, "base"), "tuned": (1, version)})
    assert gateway.pid is not None
    meter = Meter(gateway.pid, home=gateway.home)
    return Target(GATEWAY, "everything on", gateway.address, "support", key, meter)


def _peer(stack: ExitStack, peer: Peer, upstream: str, *, cache: Path, home: Path, say: Say) -> Target:
    binaries = environment(peer, cache, say=say)
    port, directory = free_port(), home / peer.name
    directory.mkdir(parents=True)
    places = {"bin": binaries, "port": port, "metrics": free_port(), "upstream": upstream, "home": directory}
    for name, text in peer.files.items():
        (directory / name).write_text(text.format(**places))
    command = [word.format(**places) for word in peer.command]
    env = {**os.environ, "PATH": f"{binaries}:{os.environ.get('PATH', '')}"}
    process = stack.enter_context(started(command, directory / "log", env=env, cwd=directory))
    about = f"{peer.version}, nothing on"
    target = Target(peer.name, about, Address("127.0.0.1", port), BASE_MODEL, peer.key, Meter(process.pid))
    say(f"waiting for {peer.name}")
    _answers(target, process, directory / "log", seconds=peer.start_seconds)
    return target


def _line_of(stack: ExitStack, command: Sequence[str], log: Path) -> str:
    """Start something that prints its address first."""
    process = stack.enter_context(started(command, log))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text()
        if "\n" in text:
            return text.splitlines()[0].strip()
        time.sleep(0.05)
    raise LoadTestFailed(f"{command[2]} did not start: {log.read_text()[-800:]}")


def _answers(target: Target, process: subprocess.Popen[bytes], log: Path, *, seconds: float) -> None:
    """Wait until it passes a completion on."""
    deadline = time.monotonic() + seconds
    headers = {"authorization": f"Bearer {target.key}"} if target.key else {}
    body = {"model": target.model, "messages": [{"role": "user", "content": "ready?"}]}
    while time.monotonic() < deadline and process.poll() is None:
        try:
            reply = httpx.post(f"{target.address.url}/v1/chat/completions", json=body, headers=headers, timeout=5)
            if reply.status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise LoadTestFailed(f"{target.name} does not answer: {log.read_text(errors='replace')[-800:]}")
