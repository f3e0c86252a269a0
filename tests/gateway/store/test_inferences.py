"""Writing inferences: whole batches, once each, whatever clients put into them."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.domain import Inference
from gateway.identity import new_inference_id
from gateway.store.database import Database
from gateway.store.inferences import write_inferences

SECRET = b"s" * 32


def inference(**changes: Any) -> Inference:
    fields: dict[str, Any] = {
        "id": new_inference_id(SECRET, "acme"),
        "tenant": "acme",
        "key_id": "key-1",
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "endpoint": "/v1/chat/completions",
        "alias": "support",
        "alias_revision": 3,
        "experiment": "exp-1",
        "variant": "tuned",
        "assigned": "acme/support@7",
        "served": "acme/support@7",
        "served_digest": "sha256:" + "0" * 64,
        "reason": "split",
        "propensity": 0.5,
        "unit": "0" * 32,
        "episode": None,
        "stream": True,
        "params": {"temperature": 0.5, "stop": ["\n"]},
        "status": 200,
        "outcome": "ok",
        "finish_reason": "stop",
        "input_tokens": 120,
        "output_tokens": 20,
        "ttft_ms": 12.5,
        "duration_ms": 250.0,
        "overhead_ms": 0.25,
        "trace_id": "0" * 32,
        "span_id": "0" * 16,
        "messages": [{"role": "user", "content": "What is my balance?"}],
        "answer": '{"intent": "balance"}',
    }
    return Inference(**(fields | changes))


async def read(db: Database) -> list[Inference]:
    async with db.transaction() as connection:
        rows = await connection.fetch("SELECT * FROM inferences ORDER BY id")
    return [
        Inference(
            **{
                **row,
                "params": json.loads(row["params"]),
                "messages": None if row["messages"] is None else json.loads(row["messages"]),
            }
        )
        for row in rows
    ]


async def count(db: Database) -> int:
    async with db.transaction() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM inferences"))


async def test_every_field_comes_back_as_it_was_written(db: Database) -> None:
    full = inference()
    bare = inference(
        **dict.fromkeys(("experiment", "served", "served_digest", "finish_reason", "input_tokens", "output_tokens")),
        **dict.fromkeys(("ttft_ms", "duration_ms", "overhead_ms", "trace_id", "span_id", "messages", "answer")),
        params={},
        episode="conversation-1",
    )
    await write_inferences(db, [full, bare])
    assert await read(db) == sorted([full, bare], key=lambda one: one.id)


async def test_a_repeated_batch_writes_what_was_missing_and_changes_nothing(db: Database) -> None:
    batch = [inference() for _ in range(100)]
    await write_inferences(db, batch[:40])
    await write_inferences(db, batch)
    await write_inferences(db, [replace(one, answer="changed") for one in batch])
    await write_inferences(db, [batch[0], batch[0], inference()])
    assert await count(db) == 101
    assert "changed" not in {one.answer for one in await read(db)}


async def test_writers_of_the_same_batch_at_once_agree(db: Database) -> None:
    batch = [inference() for _ in range(200)]
    await asyncio.gather(*(write_inferences(db, batch) for _ in range(4)))
    assert await count(db) == 200


@pytest.mark.parametrize(
    "odd",
    [
        {"episode": "nul\x00here"},
        {"answer": "half a pair \ud83d and nul \x00"},
        {"messages": [{"role": "user", "content": "\x00\ud83d"}]},
        {"params": {"temperature": float("nan"), "top_p": float("inf")}},
        {"input_tokens": 2**70, "output_tokens": -(2**70), "status": 10**12},
        {"answer": "x" * 3_000_000},
    ],
)
async def test_one_odd_request_does_not_cost_its_batch(db: Database, odd: dict[str, Any]) -> None:
    await write_inferences(db, [inference(), inference(**odd), inference()])
    assert await count(db) == 3


text = st.text(st.characters(exclude_categories=[]), max_size=20)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@settings(
    max_examples=60 * settings().max_examples // 100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=json_value, answer=text, episode=text, tokens=st.integers())
def test_whatever_a_client_sends_can_be_written(
    database_url: str, content: Any, answer: str, episode: str, tokens: int
) -> None:
    async def write() -> None:
        db = await Database.connect(database_url)
        one = inference(messages=[{"content": content}], answer=answer, episode=episode, input_tokens=tokens)
        await write_inferences(db, [one])
        await db.close()

    asyncio.run(write())


async def test_writing_keeps_up_with_thousands_a_second(db: Database) -> None:
    batches = [[inference() for _ in range(2000)] for _ in range(5)]
    started = time.perf_counter()
    for batch in batches:
        await write_inferences(db, batch)
    rate = 10_000 / (time.perf_counter() - started)
    print(f"{rate:.0f} inferences/s")
    assert rate > 1000  # measured: about 15,000 on two busy cores


@pytest.mark.parametrize("before", [0, 10])
async def test_a_batch_that_waits_for_an_erasure_does_not_make_it_wait(db: Database, before: int) -> None:
    """Locks are taken in one order: when a statement is planned, and when its plan is one of before."""
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'inferences'::regclass"
    async with asyncio.TaskGroup() as group, db.transaction() as erasing:
        for _ in range(before):  # on the connection that the batch will have, too
            await write_inferences(db, [inference()])
        await erasing.execute("LOCK TABLE inferences IN SHARE ROW EXCLUSIVE MODE")
        group.create_task(write_inferences(db, [inference()]))
        async with asyncio.timeout(10):
            while not await erasing.fetch(waiting):  # noqa: ASYNC110 - a lock tells nobody that it is waited for
                await asyncio.sleep(0.01)
        await erasing.execute("LOCK TABLE feedback IN SHARE ROW EXCLUSIVE MODE NOWAIT")
