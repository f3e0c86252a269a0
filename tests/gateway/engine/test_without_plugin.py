"""Engines that somebody else runs: no plugin of ours, perhaps no vLLM at all. They serve the base model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.engine.client import HttpEngine
from gateway.errors import EngineFailed
from gateway.settings import TimeoutSettings
from tests.gateway.engine.conftest import BASE_MODEL
from tests.gateway.engine.scripted import scripted, take_request

REF = "acme/support@1"


async def test_an_engine_without_our_plugin_serves_its_base_model_only(sockets: Path) -> None:
    async def script(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _body = await take_request(reader)
            cards = [{"id": "other", "parent": None, "max_model_len": 9}, {"id": BASE_MODEL, "max_model_len": 512}]
            status, body = (
                (200, json.dumps({"data": cards})) if b"/v1/models" in head else (404, '{"detail":"Not Found"}')
            )
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body.encode()))

    async with scripted(sockets, script):
        client = HttpEngine(f"unix:{sockets}/upstream.sock", base_model=BASE_MODEL, timeouts=TimeoutSettings())
        status = await client.status()
        assert (status.plugin, status.base_model, status.max_model_len) == (False, BASE_MODEL, 512)
        assert status.boot_id == (await client.status()).boot_id
        await client.aclose()


async def test_an_engine_that_knows_no_logprobs_and_answers_every_path_is_ready_for_the_base_model(
    sockets: Path,
) -> None:
    completion = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
    models = {"object": "list", "data": [{"id": BASE_MODEL, "max_model_len": 512}]}

    async def script(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _body = await take_request(reader)
            body = json.dumps(completion if b"completions" in head else models).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async with scripted(sockets, script):
        client = HttpEngine(f"unix:{sockets}/upstream.sock", base_model=BASE_MODEL, timeouts=TimeoutSettings())
        assert (await client.status()).plugin is False
        assert (await client.probe(BASE_MODEL)).logprobs == {}
        with pytest.raises(EngineFailed):
            await client.probe(REF)
        await client.aclose()
