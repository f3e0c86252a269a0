"""An engine that answers anything at all, through the door: never a 500, and nothing of its inside in an error."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.serving.raw import Answer, Wires, knock, request_of, standing

REQUESTS: dict[bytes, dict[str, Any]] = {
    b"/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    b"/v1/completions": {"prompt": "x"},
    b"/v1/responses": {"input": "x"},
    b"/v1/messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5},
    b"/v1/embeddings": {"input": "x"},
}
SECRET = "/srv/secret/path 10.0.0.7:9999"
DEEP = b'{"error":' * 50_000
BODIES = st.sampled_from(
    [
        b"", b"null", b"[]", b'"x"', b"{}", b"<html>", b"\xff\xfe\x00", DEEP, b"[" * 50_000, b"data: [DONE]\n\n",
        b"data: {}\n\n", b"data:\n\n", b'data: {"error":{"message":"x"}}\n\n', b"event: x\ndata: {}\n\n", b"\n\n\n\n",
        b'event: error\ndata: {"type":"error"}\n\n', b'{"id":7,"choices":"no","usage":[]}', b'{"choices":[null]}',
        b'data: {"choices":[null],"usage":7}\n\ndata: [DONE]\n\n', b"event: message_stop\ndata: {}\n\n",
        json.dumps({"error": {"message": SECRET, "param": 7}}).encode(), json.dumps({"detail": SECRET}).encode(),
    ]
) | st.binary(max_size=60)  # fmt: skip
STATUS = st.sampled_from(
    [200, 200, 200, 201, 204, 206, 302, 304, 400, 401, 404, 405, 413, 418, 422, 429, 500, 501, 503, 599]
)


async def ask(wires: Wires, path: bytes, stream: bool) -> Answer:
    body = {"model": "base", **REQUESTS[path]} | ({"stream": True} if stream else {})
    async with knock(wires.house) as client:
        client.send(request_of(json.dumps(body).encode(), path=path))
        return await client.answer()


@pytest.mark.long
def test_whatever_an_engine_answers_nobody_sees_a_500_or_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    with standing() as (wires, run), caplog.at_level(logging.WARNING):

        @settings(deadline=None, suppress_health_check=list(HealthCheck))
        @given(body=BODIES, status=STATUS, path=st.sampled_from(sorted(REQUESTS)), stream=st.booleans())
        def check(body: bytes, status: int, path: bytes, stream: bool) -> None:
            async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                told = body if status not in (204, 304) else b""
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(told), told))

            wires.engine.script = script
            stream = stream and path != b"/v1/embeddings"
            answer = run(ask(wires, path, stream))
            assert answer.status != 500 and not answer.cut
            if answer.status != 200:
                assert json.loads(answer.body)["error"]["message"]
            if status != 200:
                assert answer.status >= 400 and b"secret" not in answer.body and b"10.0.0.7" not in answer.body
            assert wires.house.door.open == 0

        check()
    assert not [record for record in caplog.records if record.name == "asyncio" or "defect" in record.message]
