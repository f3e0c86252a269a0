"""How an engine renders a chat into token ids, asked through `HttpEngine`."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.engine import fake
from gateway.engine.client import HttpEngine
from gateway.errors import NotFound

Pair = tuple[fake.Running, HttpEngine]
CHAT: list[dict[str, Any]] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}]


async def test_the_ids_are_the_engines_with_or_without_the_beginning_of_an_answer(engine: Pair) -> None:
    running, client = engine
    open_ended = await client.render(CHAT, add_generation_prompt=True)
    assert await client.render(CHAT, add_generation_prompt=False) == open_ended[:-1] and len(open_ended) == 5
    assert [one["body"] for one in running.engine.seen if one["path"] == "/tokenize"] == [
        {"messages": CHAT, "add_generation_prompt": generate} for generate in (True, False)
    ]


async def test_an_engine_without_the_route_says_so(engine: Pair) -> None:
    running, client = engine
    running.engine.switch({"lacks": ["/tokenize"]})
    with pytest.raises(NotFound) as refused:
        await client.render(CHAT, add_generation_prompt=True)
    assert refused.value.code == "endpoint_not_served"
