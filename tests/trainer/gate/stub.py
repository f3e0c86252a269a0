"""A data plane and a judge that answer from a script, on a real socket: for what a healthy gateway never does."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

Reply = tuple[int, dict[str, Any], dict[str, str]]


@dataclass
class Stub:
    """`answer` gets a request's body and how many came before it."""

    answer: Callable[[dict[str, Any], int], Reply]
    seen: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        self.seen.append(json.loads(body))
        status, reply, headers = self.answer(self.seen[-1], len(self.seen) - 1)
        named = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": named})
        await send({"type": "http.response.body", "body": json.dumps(reply).encode()})


@asynccontextmanager
async def served(stub: Stub) -> AsyncIterator[Stub]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(stub, log_config=None, lifespan="off"))
    stub.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.serve(sockets=[listener]))
        yield stub
        server.should_exit = True
        await task


def chat(text: str) -> Reply:
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}, {}


def refused(status: int, text: str = "no", **headers: str) -> Reply:
    return status, {"error": {"message": text}}, {name.replace("_", "-"): value for name, value in headers.items()}
