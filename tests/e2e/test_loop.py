"""The closed loop on the real engine, with real training, through the public interfaces only.

Version 1 is trained to answer "alpha …", version 2 learns "omega …" from its users' corrections: an answer's words say
which weights gave it, whatever a header claims.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from loadtests.demo.gateway import Gateway, running

pytestmark = [pytest.mark.engine, pytest.mark.training, pytest.mark.timeout(900)]

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
    acknowledged: float = 0.0

    def client(self, tenant: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=self.keys[tenant], max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The whole loop, once for all tests of this page."""
    home = tmp_path_factory.mktemp("loop")
    with running(home / "gateway", base_model=BASE_MODEL, model_path=MODEL, say=lambda _: None) as gateway:
        loop = Loop(gateway, {}, home)
        for tenant in ("acme", "globex"):
            gateway.tenant(tenant, store_content=tenant == "acme")
            loop.keys[tenant] = gateway.key(tenant, ["inference", "feedback"])
        gateway.point("globex", "assistant", {"base": (1, "base")})
        metric = {"name": "resolved", "kind": "boolean", "optimize": "max"}
        gateway.call("POST", "/tenants/acme/metrics", metric)
        seed = home / "seed.jsonl"
        seed.write_text("".join(json.dumps({"prompt": ask(t), "completion": WORDS[1]}) + "\n" for t in THINGS))
        loop.published.append(train(loop, "round-1", f"data.train=[{seed}]"))
        gateway.point("acme", "support", {"base": (1, "base")})
        compare(loop)
        loop.exported = export(loop)
        parent = str(loop.published[0]["ref"])
        loop.published.append(train(loop, "round-2", "data.gateway.alias=support", f"publish.parent={parent}"))
        gateway.call("POST", "/tenants/acme/aliases/support/promote", {"ref": parent})
        asyncio.run(swap_under_streams(loop, str(loop.published[1]["ref"])))
        yield loop


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
    stop = asyncio.Event()

    async def one_after_another(thing: str) -> None:
        while not stop.is_set():
            loop.streams.append(stream := Stream(time.monotonic()))
            await read(stream, client, thing)

    async with asyncio.TaskGroup() as crowd:
        for number in range(STREAMS):
            crowd.create_task(one_after_another(THINGS[number % 16]))
        await asyncio.sleep(5)
        await asyncio.to_thread(loop.gateway.call, "POST", "/tenants/acme/aliases/support/promote", {"ref": ref})
        loop.acknowledged = time.monotonic()
        await asyncio.sleep(3)
        stop.set()
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


def test_a_user_stays_on_one_variant_and_both_variants_are_used(loop: Loop) -> None:
    assert all(len(variants) == 1 for variants in loop.seen.values())
    assert set.union(*loop.seen.values()) == {"base", "tuned"}


def test_the_results_count_units_and_see_every_judgement(loop: Loop) -> None:
    results = loop.gateway.call("GET", f"/experiments/{loop.experiment['id']}/results?metric=resolved")
    assert [variant["name"] for variant in results["variants"]] == ["base", "tuned"]
    assert sum(variant["units"] for variant in results["variants"]) == 16
    assert sum(variant["feedback"] for variant in results["variants"]) == 32
    assert all(variant["mean"] == 0 for variant in results["variants"])


def test_every_correction_becomes_an_example_that_names_its_origin(loop: Loop) -> None:
    assert len(loop.exported) == 32
    assert {row["completion"] for row in loop.exported} == {WORDS[2]}
    assert {row["adapter"] for row in loop.exported} == {"base", loop.published[0]["ref"]}
    assert all(row["inference_id"] and row["feedback_ids"] and row["propensity"] == 0.5 for row in loop.exported)


def test_version_two_is_traced_to_the_feedback_and_to_version_one(loop: Loop) -> None:
    first, second = loop.published
    assert (first["ref"], second["ref"]) == ("acme/support@1", "acme/support@2")
    lineage = loop.gateway.call("GET", "/tenants/acme/adapters/support/2")["manifest"]["lineage"]
    assert lineage["parent"] == "acme/support@1"
    rows = json.loads((loop.home / "round-2" / "lineage.json").read_text())["feedback"]
    assert set(rows) <= {said for row in loop.exported for said in row["feedback_ids"]}
    assert lineage["feedback"] == len(rows) > 0


def test_no_stream_failed_across_the_swap(loop: Loop) -> None:
    assert [stream.error for stream in loop.streams if stream.error] == []
    assert all(stream.finished for stream in loop.streams)
    across = [s for s in loop.streams if s.began < loop.acknowledged < s.ended and s.adapter.endswith("@1")]
    assert len(across) >= 20


def test_every_stream_ends_on_the_weights_it_began_with(loop: Loop) -> None:
    for stream in loop.streams:
        assert stream.models == {stream.adapter}
        assert stream.text.strip().startswith(words_of(int(stream.adapter[-1]))), (stream.adapter, stream.text)


def test_after_the_acknowledgement_only_the_new_version_answers(loop: Loop) -> None:
    later = [stream for stream in loop.streams if stream.began > loop.acknowledged]
    assert later
    assert {stream.adapter for stream in later} == {"acme/support@2"}


def test_a_neighbour_sees_nothing_of_another_tenant(loop: Loop) -> None:
    globex = loop.client("globex")
    assert {model.id for model in globex.models.list()} & {"support", "support@1", "acme/support@1"} == set()
    unknown = not_found(globex, "no-such-thing")
    for name in ("support", "support@1", "acme/support@1", "support:tuned"):
        assert not_found(globex, name).replace(name, "no-such-thing") == unknown


def not_found(client: openai.OpenAI, model: str) -> str:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=1)
    return refused.value.response.text


def test_feedback_outlives_a_kill_of_the_whole_gateway_right_after_its_acknowledgement(loop: Loop) -> None:
    answer = loop.client("acme").chat.completions.create(
        model="support", messages=[{"role": "user", "content": ask("kite")}], max_tokens=4
    )
    body = {"inference_id": answer.id, "metric": "resolved", "value": True, "idempotency_key": "the-last-word"}
    reply = httpx.post(f"{loop.gateway.url}/v1/feedback", json=body, headers=bearer(loop.keys["acme"]))
    family = [
        loop.gateway.process.pid,
        *(p.pid for p in psutil.Process(loop.gateway.process.pid).children(recursive=True)),
    ]
    loop.gateway.process.kill()
    assert reply.status_code == 200
    loop.gateway.process.wait(10)
    assert gone(family), "a worker or an engine process outlived its supervisor"
    with running(loop.home / "gateway", base_model=BASE_MODEL, model_path=MODEL, say=lambda _: None) as again:
        repeated = httpx.post(f"{again.url}/v1/feedback", json=body, headers=bearer(loop.keys["acme"]))
        assert repeated.json() == {**reply.json(), "duplicate": True}
        loop.gateway = again
        an_engine_that_is_killed_mid_stream_comes_back_with_its_adapters(loop)


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if psutil.pid_exists(pid) and "postgres" not in psutil.Process(pid).name()]
        if not [pid for pid in alive if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]:
            return True
        time.sleep(0.2)
    return False


def an_engine_that_is_killed_mid_stream_comes_back_with_its_adapters(loop: Loop) -> None:
    """On the restarted gateway, since a start of the engine takes most of a minute."""
    messages = [{"role": "user", "content": ask("kite")}]
    body = {"model": "support", "messages": messages, "stream": True, "max_tokens": 400, "ignore_eos": True}
    lines: list[str] = []
    with httpx.stream(
        "POST", f"{loop.gateway.url}/v1/chat/completions", json=body, headers=bearer(loop.keys["acme"]), timeout=60
    ) as reply:
        for line in reply.iter_lines():
            lines.append(line)
            if len(lines) == 9:
                for process in psutil.Process(loop.gateway.process.pid).children(recursive=True):
                    if any("vllm" in part for part in process.cmdline()):
                        os.kill(process.pid, signal.SIGKILL)
    events = [line for line in lines if line]
    assert "error" in json.loads(events[-1].removeprefix("data: "))
    assert "[DONE]" not in events[-1]
    wrong, deadline = [], time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            answer = loop.client("acme").chat.completions.create(
                model="support", messages=[{"role": "user", "content": ask("lamp")}], max_tokens=8, temperature=0
            )
        except openai.InternalServerError as away:
            assert away.status_code == 503 and away.response.headers["retry-after"]
            time.sleep(1)
            continue
        if not (answer.choices[0].message.content or "").strip().startswith(words_of(2)):
            wrong.append(answer)
        break
    else:
        pytest.fail("the engine did not come back within three minutes")
    assert wrong == []
