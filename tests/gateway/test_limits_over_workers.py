"""Limits as a tenant meets them: two workers behind one socket, 200 requests at once, and a worker that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import openai
import pytest

from tests.gateway.test_supervisor import Serving, reached, start, until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    home: Path = tmp_path_factory.mktemp("limits")
    with start(home, "--workers", "2", GATEWAY_ENGINE__ARGS='["--itl", "0.15", "--tokens", "60"]') as one:
        yield one


def limit(serving: Serving, **limits: int | None) -> None:
    """Set acme's limits, and only these; both workers know when it returns."""
    cleared = serving.admin("PATCH", "/tenants/acme", {"limits": None})
    assert cleared.is_success, cleared.text
    changed = serving.admin("PATCH", "/tenants/acme", {"limits": limits})
    assert changed.json()["limits"] == limits
    time.sleep(0.5)


async def answers(serving: Serving, count: int, *, tokens: int) -> list[httpx.Response]:
    """`count` requests at once, each on a connection of its own, so that both workers get some."""
    body = {"model": "support", "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens}
    headers = {"authorization": f"Bearer {serving.key}"}

    own = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=60, limits=own) as client:
        url = f"{serving.url}/v1/chat/completions"
        return await asyncio.gather(*(client.post(url, json=body, headers=headers) for _ in range(count)))


async def test_of_200_requests_at_once_exactly_the_allowed_ones_run(serving: Serving) -> None:
    limit(serving, concurrent_requests=37)
    replies = await answers(serving, 200, tokens=60)  # nine seconds: the last is here before the first has ended
    assert Counter(reply.status_code for reply in replies) == {200: 37, 429: 163}
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded" and refused.headers["retry-after"] == "1"

    limit(serving, requests_per_minute=60)
    began = time.monotonic()
    replies = await answers(serving, 200, tokens=1)
    refilled = time.monotonic() - began
    let_in = Counter(reply.status_code for reply in replies)
    assert 60 <= let_in[200] <= 60 + refilled + 1 and set(let_in) == {200, 429}
    last = min(int(reply.headers["x-ratelimit-remaining-requests"]) for reply in replies)
    assert last == 0


def test_a_killed_workers_streams_do_not_count_any_more(serving: Serving) -> None:
    limit(serving, concurrent_requests=4)
    body = {"model": "support", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 2000}
    headers = {"authorization": f"Bearer {serving.key}"}

    def refused() -> bool:
        return bool(serving.ask(max_tokens=1).status_code == 429)

    with ExitStack() as open_streams:
        for _ in range(4):
            stream = httpx.stream("POST", f"{serving.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
            assert open_streams.enter_context(stream).status_code == 200
        assert refused()
        for worker in serving.children("gateway.worker"):
            os.kill(worker.pid, signal.SIGKILL)
        until(lambda: reached(serving.url) and not refused(), 20)


def test_openais_own_client_understands_the_refusal(serving: Serving) -> None:
    limit(serving, tokens_per_day=30)
    client = openai.OpenAI(base_url=f"{serving.url}/v1", api_key=serving.key, max_retries=2)
    ask = partial(
        client.chat.completions.with_raw_response.create,
        model="support",
        messages=[{"role": "user", "content": "hi"}],
    )
    began = time.monotonic()
    with pytest.raises(openai.RateLimitError) as told:
        ask(max_tokens=40)
    assert told.value.code == "insufficient_quota" and told.value.type == "insufficient_quota"
    assert time.monotonic() - began < 5, "it did not try again"

    limit(serving, requests_per_minute=600)
    assert ask(max_tokens=1).headers["x-ratelimit-limit-requests"] == "600"
