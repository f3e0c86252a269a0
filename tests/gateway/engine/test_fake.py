"""The fake engine as a product: the official client works on it, it is deterministic, its faults are what they say."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.engine import fake
from gateway.engine.fake_engine import Batch, Options

HELLO: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The fake as it is shipped: its own process, on a TCP port."""
    command = [sys.executable, "-m", "gateway.engine.fake", "--port", "0", "--base-model", "base-model"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        assert process.wait(5) == 0


@pytest.fixture
def client(url: str) -> openai.OpenAI:
    httpx.post(f"{url}/fake/reset")
    return openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


def load(url: str, name: str, path: Path) -> None:
    path.mkdir(exist_ok=True)
    httpx.post(f"{url}/tuneloop/adapters", json={"name": name, "path": str(path)}).raise_for_status()


def test_the_openai_client_gets_whole_answers(client: openai.OpenAI) -> None:
    told = client.chat.completions.create(model="base-model", messages=HELLO, max_tokens=5, n=2, seed=7)
    assert told.id.startswith("chatcmpl-")
    assert [choice.finish_reason for choice in told.choices] == ["length", "length"]
    assert told.choices[0].message.content != told.choices[1].message.content
    assert told.usage is not None
    assert (told.usage.prompt_tokens, told.usage.completion_tokens, told.usage.total_tokens) == (1, 10, 11)
    text = client.completions.create(model="base-model", prompt=["one", "two"], max_tokens=3)
    assert [choice.index for choice in text.choices] == [0, 1]
    assert client.models.list().data[0].id == "base-model"


def test_a_stream_says_the_same_as_the_whole_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="base-model", messages=HELLO)
    chunks = list(
        client.chat.completions.create(
            model="base-model", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    pieces = client.completions.create(model="base-model", prompt="hello", stream=True, max_tokens=8)
    told = client.completions.create(model="base-model", prompt="hello", max_tokens=8)
    assert "".join(piece.choices[0].text for piece in pieces) == told.choices[0].text


async def test_the_asynchronous_client_works_too(url: str) -> None:
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    told = await client.chat.completions.create(model="base-model", messages=HELLO)
    stream = await client.chat.completions.create(model="base-model", messages=HELLO, stream=True)
    assert "".join([c.choices[0].delta.content or "" async for c in stream]) == told.choices[0].message.content
    await client.close()


def test_stop_strings_tools_json_and_logprobs_are_honoured(client: openai.OpenAI) -> None:
    def ask(**more: Any) -> Any:
        return client.chat.completions.create(model="base-model", messages=HELLO, **more).choices[0]

    assert ask(stop=[" re:"]).message.content == "base"
    schema = {"type": "object", "properties": {"city": {"enum": ["Oslo"]}, "days": {"type": "integer"}}}
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": schema}}
    called = ask(tools=[tool], tool_choice={"type": "function", "function": {"name": "weather"}})
    assert called.finish_reason == "stop"  # vLLM's word for a named tool
    assert json.loads(called.message.tool_calls[0].function.arguments) == {"city": "Oslo", "days": 1}
    assert ask(tools=[tool], tool_choice="required").finish_reason == "tool_calls"
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(ask(response_format=form).message.content) == {"city": "Oslo", "days": 1}
    assert json.loads(ask(response_format={"type": "json_object"}).message.content)["model"] == "base"
    token = ask(logprobs=True, top_logprobs=3).logprobs.content[0]
    assert [len(token.top_logprobs), token.top_logprobs[0].token] == [3, token.token]
    assert ask(logprobs=True).logprobs.content[0].top_logprobs == []


def test_a_streamed_tool_call_adds_up(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "pick", "parameters": {"properties": {"a": {}, "b": {}}}}}
    stream = client.chat.completions.create(
        model="base-model", messages=HELLO, tools=[tool], tool_choice="required", stream=True
    )
    calls = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].function is not None
    assert calls[0].function.name == "pick"
    assert set(json.loads("".join(call.function.arguments or "" for call in calls if call.function))) == {"a", "b"}


def test_errors_are_vllms(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="The model `nobody` does not exist"):
        client.chat.completions.create(model="nobody", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        client.completions.create(model="base-model", prompt="word " * 5000)
    for body in ({"model": "base-model"}, [], {"model": "base-model", "messages": HELLO, "n": 0}):
        reply = httpx.post(f"{url}/v1/chat/completions", json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, 400)
    assert httpx.get(f"{url}/nowhere").status_code == 404


def test_the_request_id_becomes_the_id(url: str) -> None:
    for path, prefix, body in (
        ("chat/completions", "chatcmpl-", {"messages": HELLO}),
        ("completions", "cmpl-", {"prompt": "x"}),
    ):
        reply = httpx.post(f"{url}/v1/{path}", json=body, headers={"X-Request-Id": "abc"})
        assert reply.json()["id"] == f"{prefix}abc"
        assert reply.json()["model"] == "base-model"  # an empty model means the base


def test_answers_name_their_weights_in_every_token(client: openai.OpenAI, url: str, tmp_path: Path) -> None:
    def words(model: str) -> list[str]:
        return (client.chat.completions.create(model=model, messages=HELLO).choices[0].message.content or "").split()

    for version in (1, 2):
        load(url, f"acme/words@{version}", tmp_path / str(version))
    base, one, two = words("base-model"), words("acme/words@1"), words("acme/words@2")
    assert [base[0], one[0], two[0]] == ["base", "acme/words@1", "acme/words@2"]
    assert one == words("acme/words@1")
    assert one[1] == two[1] == base[1]  # the prompt's mark
    assert not {*base[2:]} & {*one[2:]}
    assert not {*one[2:]} & {*two[2:]}


async def test_requests_beyond_the_slots_wait_and_those_who_leave_make_room(sockets: Path) -> None:
    options = Options(base_model="base-model", slots=2, ttft=30)

    async def ask(client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json={"messages": HELLO})

    async with fake.running(options, uds=str(sockets / "e.sock")) as running:
        transport = httpx.AsyncHTTPTransport(uds=str(sockets / "e.sock"))

        async def come_to(*expected: int) -> None:
            def now() -> tuple[int, ...]:
                return running.engine.batch.running, running.engine.batch.waiting, running.engine.counts["aborted"]

            while now() != expected:  # noqa: ASYNC110 — the engine has no event for it, as a real one has none
                await asyncio.sleep(0.01)

        async with (
            httpx.AsyncClient(transport=transport, base_url="http://x", timeout=30) as client,
            asyncio.timeout(10),
        ):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(client)) for _ in range(8)]
                await come_to(2, 6, 0)
                tasks[0].cancel()
                await come_to(2, 5, 1)
                tasks[7].cancel()
                await come_to(2, 4, 2)
                for task in tasks:
                    task.cancel()
            await come_to(0, 0, 8)


async def test_an_adapter_beyond_the_batch_waits_and_those_that_fit_pass_it() -> None:
    batch, free, order = Batch(slots=9, max_loras=2), asyncio.Event(), list[str | None]()

    async def run(adapter: str | None) -> None:
        async with batch.place(adapter):
            order.append(adapter)
            await free.wait()

    async with asyncio.TaskGroup() as group:
        for adapter in ("a@1", "b@1", "c@1", "a@1", None):
            group.create_task(run(adapter))
        await asyncio.sleep(0.01)
        assert order == ["a@1", "b@1", "a@1", None]
        free.set()
    assert order[-1] == "c@1"
    assert (batch.running, batch.waiting, dict(batch.of)) == (0, 0, {})


def test_a_fault_can_be_limited_to_one_model(client: openai.OpenAI, url: str, tmp_path: Path) -> None:
    load(url, "acme/bad@1", tmp_path / "bad")
    httpx.post(f"{url}/fake/faults", json={"fail_requests": 99, "only": ["acme/bad@1"]}).raise_for_status()
    client.chat.completions.create(model="base-model", messages=HELLO)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="acme/bad@1", messages=HELLO)
    assert httpx.post(f"{url}/fake/faults", json={"typo": 1}).status_code == 400


def test_an_error_in_a_stream_reaches_the_client(client: openai.OpenAI, url: str) -> None:
    httpx.post(f"{url}/fake/faults", json={"error_after_chunks": 3})
    with pytest.raises(openai.APIError, match="Internal server error"):
        list(client.chat.completions.create(model="base-model", messages=HELLO, stream=True))


def test_what_was_sent_can_be_looked_at(client: openai.OpenAI, url: str) -> None:
    client.chat.completions.create(
        model="base-model", messages=HELLO, extra_headers={"x-trace": "1"}, extra_body={"cache_salt": "s"}
    )
    seen = httpx.get(f"{url}/fake/state").json()["requests"][-1]
    assert (seen["path"], seen["headers"]["x-trace"], seen["body"]["cache_salt"]) == ("/v1/chat/completions", "1", "s")
    assert "vllm:num_requests_running" in httpx.get(f"{url}/metrics").text
    assert httpx.post(f"{url}/tokenize", json={"prompt": "three small words"}).json()["count"] == 3


def test_death_in_a_stream_is_the_death_of_the_process() -> None:
    command = [sys.executable, "-m", "gateway.engine.fake", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        httpx.post(f"{url}/fake/faults", json={"die_after_chunks": 3})
        got = b""
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream("POST", f"{url}/v1/chat/completions", json={"messages": HELLO, "stream": True}) as reply,
        ):
            for piece in reply.iter_raw():
                got += piece
        assert got.count(b"data: {") == 3
        assert process.wait(5) == 128 + signal.SIGKILL
