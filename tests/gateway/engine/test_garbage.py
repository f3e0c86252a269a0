"""Whatever an engine says about itself and its adapters is believed or one of our errors: JSON by Hypothesis."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain import BASE
from gateway.engine.client import HttpEngine
from gateway.engine.refusals import engine_error, lacks_route
from gateway.errors import GatewayError
from gateway.settings import TimeoutSettings

from .scripted import scripted, take_request

STATUS = {"boot_id": "b", "base_model": "m", "max_lora_rank": 8, "max_loras": 1, "max_cpu_loras": 2, "max_model_len": 9}
STATUS |= {"adapters": [{"name": "a/b@1", "path": "/x", "pinned": False}], "loaded": True, "evicted": True}
COMPLETION = {"choices": [{"text": "x", "logprobs": {"token_logprobs": [-1.0], "top_logprobs": [{"x": -1.0}]}}]}
MODELS = {"data": [{"id": "m", "max_model_len": 9}], "tokens": [1, 2]}
ODD = st.sampled_from([float("inf"), float("nan"), 10**400, "x" * 100, {}, [], [[]], None, True, -1, "", {"a": None}])
JSONS = st.recursive(ODD | st.text(max_size=3), lambda inside: st.lists(inside, max_size=2), max_leaves=4)
DEEP = b'{"error":' * 100_000


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """An answer of an engine with something in it replaced; or anything else."""
    told: Any = json.loads(json.dumps(draw(st.sampled_from([STATUS, COMPLETION, MODELS]))))
    if draw(st.booleans()):
        return draw(st.sampled_from([b"", b"[", b"\xff\xfe", DEEP, b"null", b"<html>"]) | st.binary(max_size=20))
    place, at = told, draw(st.sampled_from(sorted(told)))
    while isinstance(place[at], dict | list) and place[at] and draw(st.booleans()):
        place = place[at]
        at = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
    place[at] = draw(JSONS)
    return json.dumps(told).encode()


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(bodies=st.lists(mangled(), min_size=1, max_size=6), status=st.sampled_from([200, 200, 200, 400, 404, 409, 500]))
def test_an_engine_that_tells_nonsense_is_an_error_of_ours(bodies: list[bytes], status: int) -> None:
    async def script(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await take_request(reader)
            body = bodies[len(said) % len(bodies)]
            said.append(body)
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))

    said: list[bytes] = []

    async def run() -> None:
        with tempfile.TemporaryDirectory(prefix="tl-") as directory:
            async with scripted(Path(directory), script):
                engine = HttpEngine(
                    f"unix:{directory}/upstream.sock", base_model="m", timeouts=TimeoutSettings(connect=1, first_byte=1)
                )
                asks = [engine.status, lambda: engine.probe(BASE), lambda: engine.probe("a/b@1")]
                asks += [lambda: engine.load("a/b@1", Path("/x")), lambda: engine.evict("a/b@1")]
                asks += [lambda: engine.render([], add_generation_prompt=True)]
                for ask in asks:
                    try:
                        await ask()
                    except GatewayError as error:
                        json.loads(error.body())
                await engine.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


@given(body=mangled() | st.just(DEEP), status=st.integers(201, 999))
def test_every_refusal_of_an_engine_is_an_error_of_ours(body: bytes, status: int) -> None:
    lacks_route(status, body)
    error = engine_error(status, body)
    assert 400 <= error.status < 600 and error.status != 500 and json.loads(error.body())
