"""`trainer run --ray ADDRESS`: the same run as a job of a Ray cluster, in one process or several. It trains nothing.

The job is `torchrun … -m trainer run` on one node, with the settings and the data files shipped; tuneloop must be
installed there. The base model is one that node finds (`model_path`, or its cache), and `run_dir` is a path there that
outlives the node. Whoever sees the cluster's dashboard sees the job's variables, GATEWAY_KEY among them: lend it a key
that ends soon.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from trainer.config import RunSettings
from trainer.errors import InvalidConfig, TrainingFailed
from trainer.progress import Progress

_CONFIG = "run.yaml"


def on_ray(
    settings: RunSettings, address: str, voice: Progress, *, workers: int = 1, by_plan: bool = False
) -> dict[str, Any]:
    """Run the settings on the cluster whose dashboard is at `address`; returns what `trainer run --json` prints there.

    The job's output is told as it comes. Interrupted (Ctrl-C), it stops the job. Raises `TrainingFailed` if the job
    fails, and `InvalidConfig` if it cannot be sent.
    """
    if not settings.run_dir.is_absolute():
        raise InvalidConfig("run_dir is a relative path", "name one that the cluster's nodes know, such as /shared/run")
    client = _client(address)
    with tempfile.TemporaryDirectory() as directory:
        shipped = _ship(settings, Path(directory))
        words = ["python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
        job = client.submit_job(
            entrypoint=shlex.join(
                [*words, "-m", "trainer", "run", _CONFIG, "--json", *(["--round"] if by_plan else [])]
            ),
            submission_id=f"trainer-{secrets.token_hex(6)}",
            runtime_env={"working_dir": str(shipped), "env_vars": _variables(settings)},
            entrypoint_num_cpus=workers,
        )
    voice.say(f"job {job}")
    try:
        told = asyncio.run(_followed(client, job, voice))
    except BaseException:
        client.stop_job(job)
        raise
    status = client.get_job_status(job)
    refused = told is not None and told.get("verdict") == "refused"  # by the gate: a result, though its status is none
    if told is None or (status.value != "SUCCEEDED" and not refused):
        reason = client.get_job_info(job).message or "see what it said"
        raise TrainingFailed(f"job {job} ended {status.value.lower()} ({reason})", "correct it and run it again")
    return told


def _client(address: str) -> Any:
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise InvalidConfig("--ray needs Ray", "install tuneloop[ray]") from error
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        remedy = "name its dashboard, such as http://head:8265"
        raise InvalidConfig(f"no Ray cluster answers at {address}", remedy) from error


def _ship(settings: RunSettings, into: Path) -> Path:
    """Write what the job needs beside each other: the resolved settings without keys, and the data files."""
    keys: Any = {"gateway": {"key"}, "gate": {"judge": {"key"}}}
    plain = settings.model_dump(mode="json", exclude=keys, exclude_unset=True)  # a plan sets the rest
    for kind in ("train", "held_out", "test"):
        names = []
        for number, path in enumerate(getattr(settings.data, kind)):
            names.append(f"{kind}-{number}-{path.name}")
            try:
                shutil.copyfile(path, into / names[-1])
            except OSError as error:
                raise InvalidConfig(f"{path} cannot be read ({error.strerror})", "name an existing file") from error
        plain["data"][kind] = names
    (into / _CONFIG).write_text(yaml.safe_dump(plain, allow_unicode=True), "utf-8")
    return into


def _variables(settings: RunSettings) -> dict[str, str]:
    found = {"RAY_USAGE_STATS_ENABLED": "0"}
    if settings.gateway.key is not None:
        found["GATEWAY_KEY"] = settings.gateway.key.get_secret_value()
    if settings.gate is not None and settings.gate.judge is not None and settings.gate.judge.key is not None:
        found["JUDGE_KEY"] = settings.gate.judge.key.get_secret_value()
    return found


async def _followed(client: Any, job: str, voice: Progress) -> dict[str, Any] | None:
    """Tell the job's lines as they come; the last JSON object among them is its result."""
    told, rest = None, ""
    async for text in client.tail_job_logs(job):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            if line.startswith("{"):
                told = _object(line) or told
            elif line.strip():
                voice.say(line)
    return told


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
