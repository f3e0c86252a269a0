"""`HttpEngine` against the shipped fake: status, load, evict, probe, and what an engine's errors become."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from gateway.engine import fake
from gateway.engine.base import Engine
from gateway.engine.client import HttpEngine
from gateway.engine.fake_engine import Options
from gateway.engine.refusals import engine_error, engine_sentence, lacks_route
from gateway.errors import (
    AdapterRefused,
    Conflict,
    EngineFailed,
    EngineTimeout,
    GatewayError,
    InvalidRequest,
    RateLimited,
    Unavailable,
    UpstreamBroken,
)
from gateway.settings import TimeoutSettings

from .conftest import BASE_MODEL
from .scripted import scripted, take_request

Pair = tuple[fake.Running, HttpEngine]
REF = "acme/support@1"


def adapter(directory: Path, name: str = "one", *, rank: int = 8, weights: bytes = b"") -> Path:
    path = directory / name
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    (path / "adapter_model.safetensors").write_bytes(weights)
    return path


async def generate(client: Engine, model: str, *, stream: bool = True, **more: object) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream, **more}
    answer = await client.send(b"/v1/chat/completions", (), json.dumps(body).encode())
    try:
        return await answer.read()
    finally:
        answer.close()


async def test_the_client_is_an_engine_by_its_protocol(engine: Pair) -> None:
    one: Engine = engine[1]
    assert (await one.status()).plugin


async def test_an_engine_may_be_a_host_and_a_port() -> None:
    async with fake.running(Options(base_model=BASE_MODEL)) as running:
        assert running.url.startswith("http://127.0.0.1:")
        client = HttpEngine(running.url, base_model=BASE_MODEL, timeouts=TimeoutSettings())
        assert (await client.status()).base_model == BASE_MODEL
        assert (await client.probe("base")).text == "base"
        assert (await generate(client, BASE_MODEL)).endswith(b"data: [DONE]\n\n")
        await client.aclose()


async def test_status_tells_the_limits_and_what_is_resident(engine: Pair, tmp_path: Path) -> None:
    _, client = engine
    before = await client.status()
    assert (before.base_model, before.slots, before.capacity, before.max_rank) == (BASE_MODEL, 4, 16, 64)
    assert (before.resident, before.concurrency) == (frozenset(), 2048)
    told = await client.load(REF, adapter(tmp_path))
    assert await client.load(REF, tmp_path / "one") == told == await client.probe(REF)
    after = await client.status()
    assert (after.resident, after.boot_id) == (frozenset({REF}), before.boot_id)
    assert await client.evict(REF) is True
    assert await client.evict(REF) is False


async def test_a_restarted_engine_is_empty_and_has_another_boot_id(engine: Pair, tmp_path: Path) -> None:
    running, client = engine
    await client.load(REF, adapter(tmp_path))
    before = await client.status()
    running.engine.switch({"reboot": True})
    after = await client.status()
    assert after.boot_id != before.boot_id
    assert after.resident == frozenset()


async def test_what_an_engine_refuses_comes_with_its_reason_and_without_its_paths(engine: Pair, tmp_path: Path) -> None:
    running, client = engine
    path = adapter(tmp_path, rank=128)
    for wrong, reason in ((path, "rank 128"), (tmp_path / "gone", "no such adapter directory")):
        with pytest.raises(AdapterRefused, match=reason) as refused:
            await client.load(REF, wrong)
        assert str(tmp_path) not in refused.value.message
    await client.load(REF, adapter(tmp_path, "good"))
    with pytest.raises(AdapterRefused, match="other weights"):
        await client.load(REF, adapter(tmp_path, "bad"))
    running.engine.switch({"fail_loads": 1})
    with pytest.raises(EngineFailed):
        await client.load("acme/support@2", path)


async def test_a_full_engine_is_unavailable_rather_than_the_adapter_wrong(engine: Pair, tmp_path: Path) -> None:
    _, client = engine
    path = adapter(tmp_path)
    for version in range(16):
        await client.load(f"acme/support@{version + 1}", path)
    with pytest.raises(Unavailable):
        await client.load("acme/support@17", path)


async def test_an_adapter_in_use_is_not_evicted(engine: Pair, tmp_path: Path) -> None:
    running, client = engine
    await client.load(REF, adapter(tmp_path))
    running.engine.switch({"itl": 0.05})
    answer = await client.send(
        b"/v1/completions", (), json.dumps({"model": REF, "prompt": "x", "stream": True, "max_tokens": 16}).encode()
    )
    await answer.chunk()
    with pytest.raises(Conflict):
        await client.evict(REF)
    answer.close()
    await asyncio.sleep(0.1)
    assert await client.evict(REF)


async def test_a_probe_shows_which_weights_answered(engine: Pair, tmp_path: Path) -> None:
    running, client = engine
    for name in ("one", "two"):
        await client.load(f"acme/{name}@1", adapter(tmp_path, name, weights=name.encode()))
    base, one, two = [await client.probe(model) for model in ("base", "acme/one@1", "acme/two@1")]
    assert base == await client.probe(BASE_MODEL)
    assert len({tuple(probe.logprobs.items()) for probe in (base, one, two)}) == 3
    running.engine.switch({"inert": ["acme/one@1"]})
    assert (await client.probe("acme/one@1")).logprobs == base.logprobs
    with pytest.raises(Unavailable):
        await client.probe("acme/nobody@1")


@pytest.mark.parametrize("logprob", ["NaN", "null", "-Infinity", "-9999.0"])
async def test_logprobs_that_are_no_numbers_refuse_the_adapter(sockets: Path, logprob: str) -> None:
    told = {"token_logprobs": [0], "top_logprobs": [{"!": 0}]}
    body = json.dumps({"choices": [{"text": "!", "logprobs": told}]}).replace("0", logprob).encode()

    async def script(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await take_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async with scripted(sockets, script):
        client = HttpEngine(f"unix:{sockets}/upstream.sock", base_model=BASE_MODEL, timeouts=TimeoutSettings())
        with pytest.raises(AdapterRefused, match="not finite"):
            await client.probe(REF)
        with pytest.raises(EngineFailed):
            await client.probe("base")
        await client.aclose()


async def test_nan_weights_are_refused_as_vllm_shows_them(engine: Pair, tmp_path: Path) -> None:
    running, client = engine
    await client.load(REF, adapter(tmp_path))
    running.engine.switch({"nan": [REF]})
    with pytest.raises(AdapterRefused, match="not finite"):
        await client.probe(REF)


async def test_a_hung_engine_is_found_by_the_probe_and_not_by_its_health(engine: Pair) -> None:
    running, client = engine
    running.engine.switch({"hang": True})
    health = await client.send(b"/health", (), b"", method=b"GET")
    assert (health.status, await health.read()) == (200, b"")
    with pytest.raises(EngineTimeout):
        await client.probe("base", seconds=0.3)


@pytest.mark.parametrize("phase", ["queued", "prefill", "stream", "whole"])
async def test_a_client_that_leaves_frees_the_engine_within_a_second(engine: Pair, phase: str) -> None:
    running, client = engine
    changes = {"queued": {"hang": True}, "prefill": {"ttft": 30}, "stream": {"itl": 0.02}, "whole": {"itl": 1}}[phase]
    running.engine.switch({"tokens": 1000, **changes})
    async with asyncio.TaskGroup() as group:
        task = group.create_task(generate(client, BASE_MODEL, stream=phase == "stream"))
        await asyncio.sleep(0.1)
        assert running.engine.counts["in_flight"] == 1
        task.cancel()
    started = time.monotonic()
    while running.engine.counts["in_flight"]:
        assert time.monotonic() - started < 1
        await asyncio.sleep(0.01)
    assert (running.engine.counts["aborted"], running.engine.batch.running) == (1, 0)


async def test_a_stale_connection_costs_nothing_but_a_reconnect(engine: Pair) -> None:
    running, client = engine
    for fault in ("drop_reused", "close_idle"):
        running.engine.switch({fault: True})
        answers = {await generate(client, BASE_MODEL, stream=False, max_tokens=5) for _ in range(5)}
        assert len(answers) >= 1
        running.engine.switch({fault: False})
    assert running.engine.counts["finished"] == 10


async def test_a_stream_cut_by_the_engine_is_an_error_after_what_came(engine: Pair) -> None:
    running, client = engine
    for fault in ("cut_after_chunks", "die"):
        running.engine.switch({"cut_after_chunks": 4} if fault == "cut_after_chunks" else {"itl": 0.02})
        body = {"model": BASE_MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        answer = await client.send(b"/v1/chat/completions", (), json.dumps(body).encode())
        got = await answer.chunk()
        if fault == "die":
            running.engine.switch({"cut_after_chunks": None, "die": True})
        with pytest.raises(UpstreamBroken):
            while piece := await answer.chunk():
                got += piece
        assert b"data: " in got
        assert b"[DONE]" not in got
        running.engine.switch({"cut_after_chunks": None})


async def test_bytes_that_come_one_by_one_are_the_same_text(engine: Pair) -> None:
    running, client = engine
    say = {
        "max_tokens": 4,
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "naïve 日本 🦙"}}},
    }

    async def text() -> str:
        events = (await generate(client, BASE_MODEL, **say)).decode().split("\n\n")
        told = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
        return "".join(event["choices"][0]["delta"].get("content", "") for event in told)

    whole = await text()
    running.engine.switch({"slice_bytes": 1})
    assert await text() == whole


PLACES = (
    "/srv/models/x, /opt/a/b.py line 3, unix:///run/e.sock, http://10.0.0.7:8000/v1 and 127.0.0.1:9100 (0x7f3a2b1c)"
)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "temperature must be non-negative", InvalidRequest),
        (400, "Out of range float values are not JSON compliant: nan", EngineFailed),
        (404, "The model `acme/support@1` does not exist.", Unavailable),
        (422, "no", InvalidRequest),
        (429, "busy", RateLimited),
        (500, "CUDA error at " + PLACES, EngineFailed),
        (401, "Unauthorized", EngineFailed),
        (503, "EngineCore died " + PLACES, Unavailable),
    ],
)
def test_an_engines_error_becomes_one_of_ours(status: int, message: str, kind: type[GatewayError]) -> None:
    body = json.dumps({"error": {"message": message, "type": "X", "param": None, "code": status}}).encode()
    error = engine_error(status, body)
    assert type(error) is kind
    assert not any(leak in error.message for leak in ("/srv", "/opt", "10.0.0.7", "127.0.0.1", ".sock", "0x7f", "acme"))


def test_an_engines_sentence_loses_paths_and_addresses_and_keeps_the_rest() -> None:
    body = json.dumps({"error": {"message": f"rank 128 of acme/support@7 > 64 in {PLACES}; and/or 1/2"}}).encode()
    assert engine_sentence(body) == (
        "rank 128 of acme/support@7 > 64 in (path), (path) line 3, (path), (path) and (address) ((address)); and/or 1/2"
    )
    for odd in (b"", b"<html>", b"[]", b'{"error": "Unauthorized"}', b'{"error": {"message": 7}}', b"\xff"):
        assert engine_sentence(odd)


def test_a_prompt_that_is_too_long_is_openais_error() -> None:
    message = "This model's maximum context length is 4096 tokens. However, you requested 5000"
    body = json.dumps({"error": {"message": message, "param": "input_tokens", "code": 400}}).encode()
    error = engine_error(400, body)
    assert (error.code, error.param, error.status) == ("context_length_exceeded", "input_tokens", 400)


@pytest.mark.parametrize(
    ("status", "message", "lacks"),
    [
        (404, "Not Found", True),
        (404, "File Not Found", True),
        (405, "Method Not Allowed", True),
        (501, "The model does not support Responses API", True),
        (404, "The model `acme/support@1` does not exist. Valid aliases: base.", False),
        (404, "model 'acme/support@1' not found", False),
        (501, "echo is not implemented together with streaming", False),
        (400, "Not Found", False),
        (500, "Not Found", False),
    ],
)
def test_an_engine_without_a_route_is_told_from_one_without_an_adapter(status: int, message: str, lacks: bool) -> None:
    for shape in ({"error": {"message": message, "type": "X", "param": None, "code": status}}, {"detail": message}):
        assert lacks_route(status, json.dumps(shape).encode()) is lacks
    assert lacks_route(404, b"<html>404") and lacks_route(404, b"") and not lacks_route(501, b"<html>")
