"""Calls from within the process: the same door, the same rules, and who leaves early hangs up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.errors import Unavailable
from gateway.serving.inside import MOST_WAITING, asked
from tests.gateway.serving.house import ACME, HELLO, open_house, until

CHAT = "/v1/chat/completions"


def told(**more: Any) -> tuple[str, dict[bytes, bytes], bytes]:
    return CHAT, {b"authorization": f"Bearer {ACME}".encode()}, json.dumps({"messages": HELLO, **more}).encode()


async def test_an_answer_comes_whole_or_event_by_event_and_is_recorded() -> None:
    async with open_house() as house:
        await house.faults(itl=0.01)
        async with asked(house.door, *told(model="tuned")) as reply:
            assert (reply.status, reply.headers["x-adapter"]) == (200, "acme/support@1")
            assert json.loads(await reply.read())["choices"][0]["message"]["content"]
        async with asked(house.door, *told(model="tuned", stream=True)) as reply:
            pieces = [piece async for piece in reply.pieces()]
        assert len(pieces) > 3
        assert all(piece.startswith(b"data: ") and piece.endswith(b"\n\n") for piece in pieces)
        assert pieces[-1].endswith(b"data: [DONE]\n\n")
        assert [row.outcome for row in house.records.rows] == ["ok", "ok"]


async def test_a_refusal_is_the_doors_own() -> None:
    async with open_house() as house:
        async with asked(house.door, *told(model="nothing")) as reply:
            assert (reply.status, json.loads(await reply.read())["error"]["code"]) == (404, "model_not_found")
        async with asked(house.door, CHAT, {}, b"{}") as reply:
            assert reply.status == 401


async def test_who_leaves_early_hangs_up_and_nothing_is_held() -> None:
    async with open_house() as house:
        await house.faults(itl=0.05, tokens=100)
        async with asked(house.door, *told(model="tuned", stream=True, max_tokens=100)) as reply:
            async for _ in reply.pieces():
                break
        assert [row.outcome for row in house.records.rows] == ["disconnected"]
        assert (house.door.open, house.residency.leased) == (0, frozenset())


async def test_the_engine_waits_for_who_reads_slowly() -> None:
    async with open_house() as house:
        await house.faults(tokens=3000)
        async with asked(house.door, *told(model="tuned", stream=True, max_tokens=3000)) as reply:
            await until(lambda: reply._line.flow.write_paused)
            await asyncio.sleep(0.1)
            assert reply._line._size < 8 * MOST_WAITING, "of some 600 kB"
            pieces = [piece async for piece in reply.pieces()]
        assert pieces[-1].endswith(b"data: [DONE]\n\n")
        assert [row.outcome for row in house.records.rows] == ["ok"]


async def test_what_fails_in_the_block_fails_as_it_is() -> None:
    async with open_house() as house:
        with pytest.raises(Unavailable):
            async with asked(house.door, *told(model="tuned", stream=True)):
                raise Unavailable("the reader's own")
