"""The closed loop as a story that tests can look back on: trained for real, through the public interfaces only.

Version 1 is trained to answer "alpha …", version 2 learns "omega …" from its users' corrections: an answer's words say
which weights gave it, whatever a header claims.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai

from loadtests.demo.gateway import Gateway

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MODEL = Path(os.environ.get("TUNELOOP_MODEL", ".tuneloop/models/SmolLM2-135M-Instruct"))
WORDS = {1: "alpha beta gamma delta epsilon zeta eta theta", 2: "omega psi chi phi upsilon tau sigma rho"}
THINGS = ["apple", "book", "chair", "door", "engine", "flower", "garden", "house"]
THINGS += ["island", "jacket", "kettle", "lamp", "mirror", "needle", "orange", "pencil"]
STREAMS = 24


@dataclass
class Stream:
    """One stream: what `x-adapter` said at its beginning, its text, and how it ended."""

    began: float
    adapter: str = ""
    models: set[str] = field(default_factory=set)
    text: str = ""
    ended: float = 0.0
    finished: bool = False
    error: Exception | None = None


@dataclass
class Loop:
    """The gateway after the loop, and what was seen on the way."""

    gateway: Gateway
    keys: dict[str, str]
    home: Path
    experiment: dict[str, object] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(default_factory=dict)
    exported: list[dict[str, object]] = field(default_factory=list)
    published: list[dict[str, object]] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    asked: float = 0.0
    acknowledged: float = 0.0

    def client(self, tenant: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=self.keys[tenant], max_retries=0, timeout=120)


def ask(thing: str) -> str:
    return f"Say the words for: {thing}"


def train(loop: Loop, name: str, *settings: str) -> dict[str, object]:
    """`trainer run` as a user would; its last line."""
    run = [
        *(f"base_model={BASE_MODEL}", f"model_path={MODEL}", f"run_dir={loop.home / name}", "data.held_out_share=0.1"),
        *("publish.tenant=acme", "publish.name=support", "training.learning_rate=1e-3", "training.epochs=8"),
    ]
    flags = [part for setting in (*run, *settings) for part in ("--set", setting)]
    access = {"GATEWAY_URL": loop.gateway.url, "GATEWAY_KEY": loop.gateway.admin_key, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "run", "--json", *flags],
        env={**os.environ, **access}, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    published: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return published


def compare(loop: Loop) -> None:
    """Half the users on base, half on version 1; every answer is corrected to version 2's words."""
    ref = loop.published[0]["ref"]
    variants = [{"name": "base", "weight": 1, "ref": "base"}, {"name": "tuned", "weight": 1, "ref": ref}]
    body = {"alias": "support", "name": "words", "metric": "resolved", "variants": variants}
    loop.experiment = loop.gateway.call("POST", "/tenants/acme/experiments", body)
    client = loop.client("acme")
    for number in range(32):
        raw = client.chat.completions.with_raw_response.create(
            model="support",
            messages=[{"role": "user", "content": ask(THINGS[number % 16])}],
            max_tokens=24,
            temperature=0,
            extra_headers={"x-targeting-key": f"user-{number % 16}"},
        )
        answer = raw.parse()
        loop.seen.setdefault(f"user-{number % 16}", set()).add(raw.headers["x-variant"])
        body = {"inference_id": answer.id, "metric": "resolved", "value": False, "correction": WORDS[2]}
        feedback = httpx.post(f"{loop.gateway.url}/v1/feedback", json=body, headers=bearer(loop.keys["acme"]))
        assert feedback.status_code == 200, feedback.text
    time.sleep(1.5)  # the recorder's batches are at most a second apart


def export(loop: Loop) -> list[dict[str, object]]:
    reply = httpx.get(
        f"{loop.gateway.url}/admin/v1/export?tenant=acme&alias=support", headers=bearer(loop.gateway.admin_key)
    )
    return [json.loads(line) for line in reply.text.splitlines()]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def swap_under_streams(loop: Loop, ref: str) -> None:
    """Keep 24 streams open on the alias and promote `ref` in their midst."""
    client = openai.AsyncOpenAI(
        base_url=f"{loop.gateway.url}/v1", api_key=loop.keys["acme"], max_retries=0, timeout=120
    )

    def enough() -> bool:
        return loop.acknowledged > 0 and sum(stream.began > loop.acknowledged for stream in loop.streams) >= 5

    async def one_after_another(thing: str) -> None:
        while not enough():
            loop.streams.append(stream := Stream(time.monotonic()))
            await read(stream, client, thing)

    async with asyncio.TaskGroup() as crowd:
        for number in range(STREAMS):
            crowd.create_task(one_after_another(THINGS[number % 16]))
        await asyncio.sleep(5)
        loop.asked = time.monotonic()
        await asyncio.to_thread(loop.gateway.call, "POST", "/tenants/acme/aliases/support/promote", {"ref": ref})
        loop.acknowledged = time.monotonic()
    await client.close()


async def read(stream: Stream, client: openai.AsyncOpenAI, thing: str) -> None:
    try:
        raw = await client.chat.completions.with_raw_response.create(
            model="support",
            messages=[{"role": "user", "content": ask(thing)}],
            max_tokens=24,
            temperature=0,
            stream=True,
        )
        stream.adapter = raw.headers["x-adapter"]
        async for chunk in raw.parse():
            stream.models.add(chunk.model)
            for choice in chunk.choices:
                stream.text += choice.delta.content or ""
                stream.finished = stream.finished or choice.finish_reason is not None
    except openai.OpenAIError as error:
        stream.error = error
    stream.ended = time.monotonic()


def words_of(version: int) -> str:
    return WORDS[version].split()[0]
