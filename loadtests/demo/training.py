"""Runs the trainer as a user would, by its command line and against a gateway, and shows its progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.demo.gateway import DemoFailed, Gateway
from loadtests.demo.progress import Step
from trainer.cli import REFUSED


def trainer(gateway: Gateway, arguments: Sequence[str], log: Path, now: Step) -> str:
    """`trainer` with these arguments; all it says goes to `log`. Returns its result: the last line that is an object,
    else the last one. A version that the gate refuses is a result. Raises `DemoFailed`."""
    environment = {"GATEWAY_URL": gateway.url, "GATEWAY_KEY": gateway.admin_key}
    last = result = ""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", *arguments],
            env=_with(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                if line.strip():
                    last = line.strip()
                    result = last if last.startswith("{") else result
                    now.say(last[:110])
        finally:
            process.terminate()  # a no-op after its end; on Ctrl-C it must not train on alone
    if process.wait() not in (0, REFUSED):
        raise DemoFailed(f"the trainer failed: {last} (see {log})")
    return result or last


def published_by(gateway: Gateway, last: str) -> dict[str, Any]:
    """What `trainer run --json` printed last, with what the gateway knows of the version (manifest and all)."""
    published: dict[str, Any] = json.loads(last)
    tenant, _, rest = published["ref"].partition("/")
    name, version = rest.split("@")
    return published | dict(gateway.call("GET", f"/tenants/{tenant}/adapters/{name}/{version}"))


def _with(extra: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **extra}
