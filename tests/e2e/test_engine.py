"""Our plugin and our supervisor on the real engine. Each claim was once false of stock vLLM, or would end it."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gateway.engine.client import HttpEngine
from gateway.serving.canary import judge
from gateway.settings import TimeoutSettings
from loadtests.engine.random_adapter import write_adapter
from tests.e2e.conftest import MAX_CPU_LORAS, MAX_LORAS, MAX_RANK, RealEngine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

QUESTION = "Name three colours and say what each is used for."


PROMPT = "The king of France is"


def load(client: httpx.Client, name: str, path: Path, *, pin: bool = False, **probe: str) -> httpx.Response:
    return client.post("/tuneloop/adapters", json={"name": name, "path": str(path), "pin": pin, **probe})


def evict(client: httpx.Client, name: str) -> httpx.Response:
    return client.post("/tuneloop/adapters/evict", json={"name": name})


def ask(client: httpx.Client, model: str, question: str = QUESTION, *, tokens: int = 12) -> httpx.Response:
    """One greedy answer of exactly `tokens` tokens."""
    messages = [{"role": "user", "content": question}]
    body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return client.post("/v1/chat/completions", json=body)


def answer(client: httpx.Client, model: str, question: str = QUESTION, *, tokens: int = 12) -> str:
    reply = ask(client, model, question, tokens=tokens)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def logprobs(client: httpx.Client, model: str) -> dict[str, float]:
    """The likeliest tokens after a fixed prompt. Each call computes it anew: the salt keeps the prefix cache out."""
    salt = uuid.uuid4().hex
    body = {"model": model, "prompt": PROMPT, "cache_salt": salt, "max_tokens": 1, "temperature": 0, "logprobs": 5}
    reply = client.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    top: dict[str, float] = reply.json()["choices"][0]["logprobs"]["top_logprobs"][0]
    return top


def refusal(reply: httpx.Response) -> str:
    error = reply.json()["error"]
    assert error["code"] == reply.status_code
    return str(error["message"])


def resident(client: httpx.Client) -> set[str]:
    return {adapter["name"] for adapter in client.get("/tuneloop/engine").json()["adapters"]}


def gone(pids: list[int], *, seconds: float) -> bool:
    """Whether none of these processes lives, at the latest after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(lives(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_an_adapter_is_loaded_listed_and_truly_evicted(real_engine: RealEngine, adapters: list[Path]) -> None:
    with real_engine.client() as client:
        base = answer(client, real_engine.base_model)
        began = time.perf_counter()
        assert load(client, "acme/support@1", adapters[0]).json() == {"name": "acme/support@1", "loaded": True}
        assert time.perf_counter() - began < 2
        assert load(client, "acme/support@1", adapters[0]).json()["loaded"] is False
        status = client.get("/tuneloop/engine").json()
        assert status["adapters"] == [{"name": "acme/support@1", "path": str(adapters[0]), "pinned": False}]
        assert (status["base_model"], status["max_lora_rank"]) == (real_engine.base_model, MAX_RANK)
        assert (status["max_loras"], status["max_cpu_loras"]) == (MAX_LORAS, MAX_CPU_LORAS)
        tuned = answer(client, "acme/support@1")
        assert tuned != base
        assert evict(client, "acme/support@1").json() == {"name": "acme/support@1", "evicted": True}
        assert evict(client, "acme/support@1").json()["evicted"] is False
        assert resident(client) == set()
        assert ask(client, "acme/support@1").status_code == 404
        assert answer(client, real_engine.base_model) == base


def test_a_load_with_a_probe_tells_what_the_adapter_says(real_engine: RealEngine, adapters: list[Path]) -> None:
    with real_engine.client() as client:
        for loaded in (True, False):
            told = load(client, "acme/a@1", adapters[0], probe=PROMPT).json()
            assert told["loaded"] is loaded
            assert told["probe"]["logprobs"].keys() == logprobs(client, "acme/a@1").keys()
            assert distance(told["probe"]["logprobs"], logprobs(client, "acme/a@1")) < 0.1
        assert told["probe"]["logprobs"] != logprobs(client, real_engine.base_model)


@pytest.mark.parametrize("strength", [0.0, 1e20, 1e38])
def test_weights_without_effect_and_weights_that_overflow_fail_the_canary(
    real_engine: RealEngine, tmp_path: Path, strength: float
) -> None:
    path = write_adapter(tmp_path / "bad", real_engine.model, seed=1, strength=strength)

    async def verdict() -> str | None:
        engine = HttpEngine(real_engine.url, base_model=real_engine.base_model, timeouts=TimeoutSettings())
        try:
            return judge(await engine.load("acme/bad@1", path), await engine.probe(real_engine.base_model))
        finally:
            await engine.aclose()

    assert asyncio.run(verdict()) is not None


def test_the_engine_is_never_filled_beyond_what_it_holds(real_engine: RealEngine, adapters: list[Path]) -> None:
    with real_engine.client() as client:
        for number in range(MAX_CPU_LORAS):
            assert load(client, f"acme/a@{number + 1}", adapters[number]).status_code == 200
        reply = load(client, "acme/a@9", adapters[4])
        assert reply.status_code == 503
        assert "evict one first" in refusal(reply)
        assert len(resident(client)) == MAX_CPU_LORAS
        evict(client, "acme/a@1")
        assert load(client, "acme/a@9", adapters[4]).status_code == 200


def test_what_vllm_refuses_is_a_422_with_its_reason_and_no_path(real_engine: RealEngine, tmp_path: Path) -> None:
    big = write_adapter(tmp_path / "big", real_engine.model, seed=9, rank=2 * MAX_RANK)
    dora = write_adapter(tmp_path / "dora", real_engine.model, seed=9)
    config = json.loads((dora / "adapter_config.json").read_text())
    (dora / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    cut = write_adapter(tmp_path / "cut", real_engine.model, seed=9)
    weights = (cut / "adapter_model.safetensors").read_bytes()
    (cut / "adapter_model.safetensors").write_bytes(weights[: len(weights) // 2])
    with real_engine.client() as client:
        for path, said in ((big, f"rank {2 * MAX_RANK}"), (dora, "DoRA"), (cut, "")):
            reply = load(client, f"acme/{path.name}@1", path)
            assert reply.status_code == 422
            assert said in refusal(reply)
            assert "/" not in refusal(reply).replace("acme/", "")
            assert ask(client, f"acme/{path.name}@1").status_code == 404
            # Its canary is on the way to the engine before the load has failed: it must not make the engine load it.
            tried = load(client, f"acme/{path.name}@1", path, probe=PROMPT)
            assert (tried.status_code, refusal(tried)) == (422, refusal(reply))
        assert resident(client) == set()
        assert answer(client, real_engine.base_model)


def test_only_a_local_directory_with_safetensors_is_read(
    real_engine: RealEngine, adapters: list[Path], tmp_path: Path
) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(adapters[0], pickled)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with real_engine.client() as client:
        assert load(client, "acme/a@1", tmp_path / "absent").status_code == 404
        assert load(client, "acme/a@1", Path("some-user/some-adapter")).status_code == 404
        assert load(client, "acme/a@1", Path("~/adapter")).status_code == 404
        assert load(client, "acme/a@1", pickled).status_code == 422
        assert load(client, real_engine.base_model, adapters[0]).status_code == 422
        assert client.post("/tuneloop/adapters", content=b"{").status_code == 400
        assert client.post("/tuneloop/adapters", json={"name": "a\nb", "path": "/"}).status_code == 400
        assert resident(client) == set()


def test_a_name_never_comes_to_mean_other_weights(real_engine: RealEngine, adapters: list[Path]) -> None:
    with real_engine.client() as client:
        load(client, "acme/a@1", adapters[0])
        mine = answer(client, "acme/a@1")
        assert load(client, "acme/a@1", adapters[1]).status_code == 409
        assert answer(client, "acme/a@1") == mine


def test_vllms_own_switches_for_adapters_do_not_exist(real_engine: RealEngine, adapters: list[Path]) -> None:
    body = {"lora_name": "evil", "lora_path": str(adapters[0])}
    with real_engine.client() as client:
        for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters"):
            assert client.post(path, json=body).status_code == 404
        assert ask(client, str(adapters[0])).status_code == 404


def test_one_slot_always_stays_free_of_pins(real_engine: RealEngine, adapters: list[Path]) -> None:
    with real_engine.client() as client:
        assert client.post("/tuneloop/adapters/pin", json={"name": "acme/a@1"}).status_code == 404
        for number in range(MAX_LORAS - 1):
            assert load(client, f"acme/a@{number + 1}", adapters[number], pin=True).status_code == 200
        load(client, "acme/a@8", adapters[3])
        assert client.post("/tuneloop/adapters/pin", json={"name": "acme/a@8"}).status_code == 503
        assert answer(client, "acme/a@8")
        evict(client, "acme/a@1")
        assert client.post("/tuneloop/adapters/pin", json={"name": "acme/a@8"}).json()["pinned"] is True


def test_requests_go_on_while_adapters_come_and_go(real_engine: RealEngine, adapters: list[Path]) -> None:
    with real_engine.client() as client, ThreadPoolExecutor(8) as pool:
        load(client, "acme/a@1", adapters[0])
        mine = [pool.submit(ask, client, "acme/a@1", f"Say {i}.", tokens=24) for i in range(8)]
        for number in (2, 3, 4):
            assert load(client, f"acme/a@{number}", adapters[number]).status_code == 200
            assert evict(client, f"acme/a@{number}").status_code == 200
        assert [future.result().status_code for future in mine] == [200] * 8


def test_an_adapter_in_use_is_not_evicted_and_its_stream_ends_whole(
    real_engine: RealEngine, adapters: list[Path]
) -> None:
    body: dict[str, Any] = {"model": "acme/a@1", "prompt": "Once", "max_tokens": 64, "stream": True, "ignore_eos": True}
    with real_engine.client() as client:
        load(client, "acme/a@1", adapters[0])
        with client.stream("POST", "/v1/completions", json=body) as stream:
            lines = stream.iter_lines()
            next(lines)
            reply = evict(client, "acme/a@1")
            assert (reply.status_code, resident(client)) == (409, {"acme/a@1"})
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert evict(client, "acme/a@1").json()["evicted"] is True


def test_a_vanished_directory_of_a_resident_adapter_harms_nobody(
    real_engine: RealEngine, adapters: list[Path], tmp_path: Path
) -> None:
    doomed = tmp_path / "doomed"
    shutil.copytree(adapters[0], doomed)
    with real_engine.client() as client:
        load(client, "acme/doomed@1", doomed)
        mine = answer(client, "acme/doomed@1")
        shutil.rmtree(doomed)
        for number in range(1, MAX_CPU_LORAS):  # more than there are slots: it is pushed out, and must come back
            load(client, f"acme/a@{number}", adapters[number])
            answer(client, f"acme/a@{number}", tokens=2)
        assert answer(client, "acme/doomed@1") == mine
        evict(client, "acme/doomed@1")
        assert load(client, "acme/doomed@1", doomed).status_code == 404
        assert answer(client, real_engine.base_model)


def test_in_a_mixed_batch_everybody_gets_their_own_weights(real_engine: RealEngine, tmp_path: Path) -> None:
    """Stock vLLM on a CPU gives base requests the last slot's adapter once all slots are filled (vllm#48421)."""
    names = [real_engine.base_model, *(f"acme/a@{number}" for number in range(1, MAX_LORAS + 1))]
    with real_engine.client() as client, ThreadPoolExecutor(16) as pool:
        for number, name in enumerate(names[1:]):
            load(client, name, write_adapter(tmp_path / str(number), real_engine.model, seed=number, strength=3))
        alone = {name: logprobs(client, name) for name in names}
        for name in names[:-1]:
            assert distance(alone[name], alone[names[-1]]) > 1
        mixed = [(name, pool.submit(logprobs, client, name)) for _ in range(4) for name in names]
        for name, future in mixed:
            assert distance(future.result(), alone[name]) < 0.3


def distance(one: dict[str, float], other: dict[str, float]) -> float:
    """The largest difference of log-probabilities among the likeliest tokens; infinite when they share none."""
    return max((abs(one[token] - other[token]) for token in one.keys() & other.keys()), default=float("inf"))


def test_after_kill_9_the_engine_comes_back_empty_and_with_another_boot_id(
    real_engine: RealEngine, adapters: list[Path]
) -> None:
    with real_engine.client() as client:
        load(client, "acme/a@1", adapters[0])
    before = real_engine.status()
    pids = real_engine.kill_api_server()
    assert gone(pids, seconds=5)
    real_engine.hears("ready")
    after = real_engine.status()
    assert after["boot_id"] != before["boot_id"]
    assert after["adapters"] == []


def test_kill_9_of_the_supervisor_leaves_no_process_of_the_engine(real_engine: RealEngine) -> None:
    pids = real_engine.kill_supervisor()
    assert len(pids) >= 3  # API server, EngineCore, resource tracker
    assert gone(pids, seconds=5)
