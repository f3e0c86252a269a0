"""`trainer run --ray` on a real cluster of one node: two processes train, and a job that fails fails the command."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trainer import tiny

pytestmark = [pytest.mark.training, pytest.mark.processes, pytest.mark.long, pytest.mark.timeout(500)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of one node, in a session of its own that ends with the test."""
    port, dashboard = free_port(), free_port()
    words = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
    words += ["--num-cpus", "2", "--node-ip-address", "127.0.0.1", "--port", str(port)]
    words += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--temp-dir", f"/tmp/ray-{port}"]
    words += ["--object-store-memory", str(100 * 1024 * 1024)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    cluster = subprocess.Popen(
        words, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    url = f"http://127.0.0.1:{dashboard}"
    try:
        for _ in range(600):
            assert cluster.poll() is None
            try:
                urllib.request.urlopen(f"{url}/api/version", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        cluster.terminate()
        try:
            cluster.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(cluster.pid, signal.SIGKILL)
            shutil.rmtree(f"/tmp/ray-{port}", ignore_errors=True)


def test_a_job_trains_in_two_processes_and_a_failed_one_fails_the_command(
    dashboard: str, tmp_path: Path, tiny_model: Path
):
    wanted = tiny.settings(tmp_path, tiny_model, training__max_steps=3)
    words = tiny.command(wanted, "--json", "--ray", dashboard, "--processes", "2")
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == 3 and (wanted.run_dir / "adapter" / "manifest.json").exists()
    assert "step 3/3 · loss " in done.stderr
    again = subprocess.run([*words, "--set", "training.seed=1"], capture_output=True, text=True, timeout=300)
    assert again.returncode == 1 and "holds a run with other settings" in again.stderr
    assert "trainer: job trainer-" in again.stderr and " ended failed (" in again.stderr
