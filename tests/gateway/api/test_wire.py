"""Both planes on one connection, the control plane as it is: every error in OpenAI's shape. Raw sockets."""

from __future__ import annotations

import json

from tests.gateway.api.installation import ADMIN_KEY, Installation
from tests.gateway.serving.raw import knock, wired
from tests.gateway.serving.test_wire import ELSEWHERE, KEY, NO_REQUEST, WEBSOCKET, ask, chunked, get

ADMIN = b"authorization: Bearer " + ADMIN_KEY.encode()
FEEDBACK = b"POST /v1/feedback HTTP/1.1"
JSON = b"content-type: application/json"


async def test_both_planes_answer_in_turns_on_one_connection_and_refuse_in_one_shape(here: Installation) -> None:
    refused = {
        "a key nobody knows": (401, ask(FEEDBACK, JSON, key=KEY, body=b"{}")),
        "no key": (401, ask(FEEDBACK, JSON, key=b"x: y", body=b"{}")),
        "NaN": (400, ask(FEEDBACK, JSON, key=ADMIN, body=b'{"value":NaN}')),
        "a lone surrogate": (400, ask(FEEDBACK, JSON, key=ADMIN, body=b'{"metric":"\\ud800"}')),
        "no JSON": (400, ask(FEEDBACK, JSON, key=ADMIN, body=b"\xff\xfe")),
        "too deep": (400, ask(FEEDBACK, JSON, key=ADMIN, body=b"[" * 100_000)),
        "chunks": (400, chunked(JSON, b"transfer-encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n")),
        "a method too many": (405, ask(b"DELETE /v1/feedback HTTP/1.1", key=ADMIN, body=b"")),
        "a websocket": (404, get(b"/v1/nothing", *WEBSOCKET)),
    } | {target.decode(): (404, ask(b"POST %b HTTP/1.1" % target)) for target in ELSEWHERE}
    async with wired(other=here.app) as wires, knock(wires.house) as client:
        for name, (status, raw) in refused.items():
            client.send(raw, get(b"/livez"), ask())
            answer = await client.answer()
            assert 400 <= answer.status < 500 and answer.error["message"], (name, answer)
            assert answer.status == status or status == 400, (name, answer)
            assert (await client.answer()).status < 500
            assert json.loads((await client.answer()).body)["choices"] == []
        assert len(wires.engine.bodies) == len(refused)


async def test_no_request_disturbs_the_control_plane(here: Installation) -> None:
    async with wired(other=here.app) as wires:
        for name, raw in NO_REQUEST.items():
            async with knock(wires.house) as client:
                client.send(raw.replace(b"/v1/chat/completions", b"/v1/feedback", 1))
                answer = await client.answer()
                assert answer.status in (400, 401, 404, 405, 413, 415, 431) and answer.error, (name, answer)
