"""Damaged requests, chosen by Hypothesis: never a 5xx, never a wait, never a second request to the engine, and whoever
comes next is served.
"""

from __future__ import annotations

import asyncio
import json
import logging
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.gateway.serving.raw import Answer, Wires, body_of, knock, request_of, standing
from tests.gateway.serving.test_wire import NO_REQUEST, NOT_SERVED, OFFER, SERVED, ask, chunked, get, other

pytestmark = pytest.mark.long

fuzz = settings(deadline=None, suppress_health_check=list(HealthCheck))
SEEDS = [
    ask(),
    ask(b"POST /v1/completions HTTP/1.1", body=json.dumps({"model": "base", "prompt": "x", "stop": ["a"]}).encode()),
    ask(b"POST /v1/chat/completions HTTP/1.1", *OFFER),
    ask(b"POST /v1/chat/completions HTTP/1.1", b"expect: 100-continue"),
    chunked(body=b"5\r\n" + body_of()[:5] + b"\r\n%x\r\n%b\r\n0\r\nx: y\r\n\r\n" % (len(body_of()) - 5, body_of()[5:])),
    get(b"/v1/models/base"),
    get(b"/elsewhere?a=b"),
    ask(b"PUT /upload HTTP/1.1", body=b"x" * 50),
    chunked(body=b"5\r\nhello\r\n0\r\n\r\n").replace(b"/v1/chat/completions", b"/upload"),
]
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\r\n\r\n", b"0\r\n\r\n", b"content-length: 3\r\n", b"HTTP/1.0",
    b"transfer-encoding: chunked\r\n", b"connection: close\r\n", b"connection: upgrade\r\nupgrade: h2c\r\n", b"\xff",
    b"CONNECT ", b"GET ", b"POST ", b"*", b"http://", b"%00", b"?", b"#", b"expect: 100-continue\r\n", b"1e999",
    b'"', b"{", b"[", b"\\ud800", b"host: y\r\n", b"99999999999999999999",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = min(len(raw), start + draw(st.integers(0, 8)))
        told = [st.just(b""), st.just(bytes(raw[start:end]) * 2), st.binary(max_size=4), st.sampled_from(TOKENS)]
        raw[start:end] = draw(st.one_of(told))
    return bytes(raw)


async def converse(wires: Wires, raw: bytes, cuts: list[int]) -> list[Answer]:
    """Send it in pieces, half close, and read all that comes, which must be whole and end."""
    points = [0, *sorted({cut for cut in cuts if cut < len(raw)}), len(raw)]
    answers: list[Answer] = []
    async with knock(wires.house) as client:
        for start, end in pairwise(points):
            client.send(raw[start:end])
            await asyncio.sleep(0)
        client.writer.write_eof()
        while True:
            try:
                answers.append(await client.answer())
            except ConnectionResetError as end_of_it:
                assert end_of_it.args[0] == b"" or isinstance(end_of_it.args[0], int), end_of_it
                return answers
            assert not answers[-1].cut


def test_a_damaged_request_is_served_once_or_refused_and_the_next_one_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with standing(other=other) as (wires, run), caplog.at_level(logging.WARNING):

        @fuzz
        @given(raw=damaged(), cuts=st.lists(st.integers(1, 400), max_size=6))
        def check(raw: bytes, cuts: list[int]) -> None:
            wires.engine.bodies.clear()
            answers = run(converse(wires, raw, cuts))
            assert all(answer.status < 500 for answer in answers), answers
            for answer in answers:
                if answer.status >= 400 and answer.body:
                    assert answer.error["message"]
            assert len(wires.engine.bodies) <= min(1, sum(answer.status == 200 for answer in answers))
            (fine,) = run(converse(wires, ask(), []))
            assert fine.status == 200 and wires.house.door.open == 0

        for raw in (*NO_REQUEST.values(), *(raw for _, raw in NOT_SERVED.values()), *SERVED.values()):
            if len(raw) < 1000:
                check = example(raw=raw, cuts=[len(raw) // 2])(check)
        check()
    assert not [record for record in caplog.records if record.name == "asyncio" or "defect" in record.message]


LENGTHS = [b"Content-Length: 7\r\n", b"content-length: 069\r\n", b"CONTENT-LENGTH: 7\r\n", b"content-length: 7 \r\n"]
LENGTHS += [b"content-length:69\r\n", b"x-content-length: 7\r\n", b" content-length: 7\r\n", b""]


def test_a_request_means_the_same_whole_and_byte_by_byte() -> None:
    """What comes whole may be known by its head's bytes. What comes in pieces is read by the parser: the judge."""
    with standing(other=other) as (wires, run):

        @fuzz
        @given(raw=damaged(), at=st.integers(0, 6), more=st.sampled_from(LENGTHS))
        def check(raw: bytes, at: int, more: bytes) -> None:
            lines = raw.split(b"\r\n")
            raw = b"\r\n".join([*lines[:at], more.removesuffix(b"\r\n"), *lines[at:]]) if at and more else raw
            told = []
            for cuts in ([], list(range(1, len(raw)))):
                wires.engine.bodies.clear()
                first = run(converse(wires, raw, cuts))[:1]  # what follows the first is a matter of time
                bodies = [{**body, "cache_salt": None} for body in wires.engine.bodies]
                told.append((bodies, [(one.status, one.body if one.status != 200 else b"") for one in first]))
            assert told[0] == told[1]

        for seed in SEEDS:
            run(converse(wires, seed, []))
        check()


def test_a_damaged_body_is_a_request_or_a_4xx() -> None:
    with standing() as (wires, run):

        @fuzz
        @given(raw=damaged_bodies(), stream=st.booleans())
        def check(raw: bytes, stream: bool) -> None:
            (answer,) = run(converse(wires, request_of(raw), []))
            assert answer.status == 200 or (400 <= answer.status < 500 and answer.error["type"]), answer

        check()


@st.composite
def damaged_bodies(draw: st.DrawFn) -> bytes:
    fields = {
        "temperature": 0.5, "max_tokens": 5, "n": 1, "stop": ["x"], "logit_bias": {"5": 1}, "user": "u", "seed": 3,
        "response_format": {"type": "json_object"}, "logprobs": True, "top_logprobs": 2, "metadata": {"a": "b"},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    }  # fmt: skip
    chosen = draw(st.sets(st.sampled_from(sorted(fields)), max_size=4))
    raw = bytearray(body_of(**{name: fields[name] for name in chosen}))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(raw)))
        end = min(len(raw), start + draw(st.integers(0, 8)))
        odd = [
            b"null",
            b"-1",
            b"1e999",
            b"NaN",
            b"[]",
            b"{}",
            b'""',
            b"true",
            b"9" * 30,
            b'"a":1,',
            b"\\ud800",
            b"[" * 50,
        ]
        raw[start:end] = draw(st.sampled_from(odd) | st.binary(max_size=3) | st.just(bytes(raw[start:end]) * 2))
    return bytes(raw)
