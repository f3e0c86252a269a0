"""The comparison's arithmetic, the bare proxy, and the quota that makes room on a small machine."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from loadtests import crew
from loadtests.asks import Address, chat
from loadtests.installation import free_port, mock_command, started
from loadtests.peers.bench import UNARY_32, Figure, summary
from loadtests.quota import limited
from loadtests.traffic import Traffic


def figure(target: str, turn: int, cpu: float) -> Figure:
    return Figure(target, UNARY_32.name, turn, cpu, 0.0, 1000.0, 1.0, 2.0, 0)


def test_ratios_are_taken_within_a_round() -> None:
    """The machine was half as fast in round 2; that cancels."""
    figures = [figure("ours", 1, 50), figure("theirs", 1, 100), figure("ours", 2, 100), figure("theirs", 2, 200)]
    figures += [figure("ours", 3, 60), figure("theirs", 3, 100)]
    ours = summary(figures, "ours", UNARY_32, yardstick="theirs")
    assert ours is not None
    assert (ours.ratio, ours.cpu) == (0.5, 60)
    assert summary(figures, "absent", UNARY_32, yardstick="theirs") is None


def test_a_limited_process_gets_its_share_and_no_more() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            process = psutil.Process(busy.pid)
            with limited([busy.pid], 0.2):
                time.sleep(0.2)
                before, began = process.cpu_times().user, time.monotonic()
                time.sleep(1.0)
                used = (process.cpu_times().user - before) / (time.monotonic() - began)
            assert used < 0.35
        finally:
            busy.kill()


def test_the_bare_proxy_passes_answers_and_streams_on(tmp_path: Path) -> None:
    uds, port = f"unix:{tmp_path}/m", free_port()
    bare = [sys.executable, "-m", "loadtests.peers.bare", "--port", str(port), "--upstream", uds]
    with (
        started(mock_command("--uds", f"{tmp_path}/m"), tmp_path / "mock.log"),
        started(bare, tmp_path / "bare.log"),
    ):
        _wait_for(port)
        asks = (chat("base"), chat("base", stream=True), chat("base", stream=True, wish="tokens=2000 width=500"))
        which = np.array([0, 1, 2, 0, 1, 2], dtype=np.int32)
        plan = Traffic(Address("127.0.0.1", port), asks, which, np.arange(6) / 50.0)
        samples, _ = crew.run([plan], say=lambda _: None)
    assert samples.problems() == {}
    assert sorted(samples["tokens"].tolist()) == [0, 0, 50, 50, 2000, 2000]


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail("the proxy did not start")
