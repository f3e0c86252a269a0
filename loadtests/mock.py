"""A very fast OpenAI-like upstream, so that what is measured is what stands in front of it.

    python -m loadtests.mock --port 9100                     # answers of 50 tokens, in one go
    python -m loadtests.mock --uds /tmp/mock.sock --itl 0.01 # streams with a chunk every 10 ms

`"stream": true` gets a chunk per token and `[DONE]`; anything else one JSON body. A request may say how it wants to be
answered, anywhere in its text, since a proxy may drop fields but not words: `(mock tokens=200 itl=0.2 width=400)`.
It also knows the adapter routes of Tuneloop's engine plugin, so that aliases can point to versions; weights it does not
read. Every chunk names the model that it was asked of. With `--slots` it runs so many requests at once, in the order of
their arrival, each for `--ttft` seconds, as an engine without fairness would.

What it is not: it checks nothing, counts no tokens of prompts, and knows no pipelining.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httptools
import uvloop

from loadtests.descriptors import raise_limit
from loadtests.mock_answers import (
    END,
    JSON_HEAD,
    MODEL,
    STREAM_HEAD,
    WISH,
    Pace,
    burst,
    events,
    frame,
    probed,
    whole,
    with_id,
)

BIG = 200_000
"""Letters: a longer stream is not made as a whole."""


class Engine:
    """What all connections share: the pace, the adapters that were put here, and the places of `--slots`."""

    def __init__(self, pace: Pace, *, slots: int = 0, base_model: str = "base", max_loras: int = 16) -> None:
        self.pace, self.base_model, self.max_loras = pace, base_model, max_loras
        self.boot = uuid.uuid4().hex
        self.adapters: dict[str, str] = {}
        self.slots = slots
        self._free = slots or sys.maxsize
        self._waiting: deque[Callable[[], None]] = deque()

    def enter(self, begin: Callable[[], None]) -> None:
        """Call `begin` when a place is free; it must be given back by `leave`."""
        if self._free > 0:
            self._free -= 1
            begin()
        else:
            self._waiting.append(begin)

    def leave(self) -> None:
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1

    def plugin(self, url: bytes, body: bytes) -> tuple[int, dict[str, Any]]:
        """The adapter routes of the engine plugin: status, load, evict."""
        told = json.loads(body) if body else {}
        name = str(told.get("name", ""))
        if url.endswith(b"/engine"):
            rows = [{"name": one, "path": path, "pinned": False} for one, path in self.adapters.items()]
            limits: dict[str, Any] = {
                "max_lora_rank": 64,
                "max_loras": self.max_loras,
                "max_cpu_loras": 4 * self.max_loras,
            }
            if self.slots:
                limits["max_num_seqs"] = self.slots
            limits |= {"boot_id": self.boot, "base_model": self.base_model, "max_model_len": 8192, "adapters": rows}
            return 200, limits
        if url.endswith(b"/evict"):
            return 200, {"name": name, "evicted": self.adapters.pop(name, None) is not None}
        loaded = name not in self.adapters
        self.adapters[name] = str(told.get("path", ""))
        return 200, {"name": name, "loaded": loaded}


class Exchange(asyncio.Protocol):
    """One connection; one request at a time. Callbacks throughout: a task for each stream would cost more than it."""

    transport: asyncio.Transport

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.parser = httptools.HttpRequestParser(self)
        self.url = self.request_id = b""
        self.body: list[bytes] = []
        self.events: tuple[bytes, ...] = ()
        self.sent = 0
        self.due = 0.0
        self.paused = self.waiting = self.holds = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.waiting:
            self.waiting = False
            self.due = self.loop.time()
            self._next()

    def connection_lost(self, _: Exception | None) -> None:
        self._release()

    def on_message_begin(self) -> None:
        self.request_id, self.body = b"", []

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self.request_id = value

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self.body)
        if self.url.endswith(b"completions"):
            if b'"logprobs":' in body and b'"prompt":' in body:
                self._json(200, probed(body))
            else:
                self._generate(body)
        elif self.url.startswith(b"/tuneloop/"):
            self._json(*self.engine.plugin(self.url, body))
        else:
            card = {"id": self.engine.base_model, "object": "model", "created": 1, "owned_by": "mock"}
            told: dict[str, Any] = {"object": "list", "data": [card | {"max_model_len": 8192}], "status": "ok"}
            # Some routers ask these of an engine before they send it anything.
            told |= {"model_path": "base", "served_model_name": "base", "is_generation": True}
            self._json(200, told)

    def _json(self, status: int, told: dict[str, Any]) -> None:
        raw = json.dumps(told).encode()
        self.transport.write(JSON_HEAD % (status, b"OK", len(raw)) + raw)

    def _generate(self, body: bytes) -> None:
        pace = self.engine.pace
        if b"(mock " in body and (wish := WISH.search(body)):
            pace = pace.wished(wish[1])
        found = MODEL.search(body)
        model = found[1].decode(errors="replace") if found else "base"
        chat = self.url.endswith(b"chat/completions")
        if b'"stream":true' in body or b'"stream": true' in body:
            usage = b'"include_usage":true' in body or b'"include_usage": true' in body
            begin: Callable[[], None] = lambda: self._stream(model, pace, chat, usage)  # noqa: E731 — one of two, below
        else:
            begin = lambda: self._answer(model, pace, chat)  # noqa: E731 — as above
        if pace.ttft:
            self.engine.enter(lambda: self._later(pace.ttft, begin))
        else:
            begin()

    def _later(self, seconds: float, begin: Callable[[], None]) -> None:
        if self.transport.is_closing():  # it left while it waited
            self.engine.leave()
            return
        self.holds = True
        self.loop.call_later(seconds, self._when_served, begin)

    def _when_served(self, begin: Callable[[], None]) -> None:
        self._release()
        if not self.transport.is_closing():
            begin()

    def _release(self) -> None:
        if self.holds:
            self.holds = False
            self.engine.leave()

    def _answer(self, model: str, pace: Pace, chat: bool) -> None:
        raw = with_id(whole(model, pace, chat=chat), self.request_id, chat=chat)
        self.transport.write(JSON_HEAD % (200, b"OK", len(raw)) + raw)

    def _stream(self, model: str, pace: Pace, chat: bool, usage: bool) -> None:
        if not pace.itl and pace.tokens * pace.width < BIG:
            whole_stream = burst(model, pace, chat=chat, usage=usage)
            self.transport.write(with_id(whole_stream, self.request_id, chat=chat))
            return
        self.events, self.chat = events(model, pace, chat=chat, usage=usage), chat
        self.sent, self.due, self.itl, self.last = 0, self.loop.time(), pace.itl, pace.tokens
        self.transport.write(STREAM_HEAD)
        self._next()

    def _next(self) -> None:
        """The next token, and when the last is out, the end. The schedule is kept, whatever one write cost; without
        one, tokens are poured out as fast as they are taken."""
        while not self.transport.is_closing():
            if self.paused:
                self.waiting = True
                return
            self.transport.write(self._frame())
            if self.sent >= self.last:
                self.transport.write(b"".join(self._frame() for _ in self.events[self.sent :]) + END)
                return
            if self.itl:
                self.due += self.itl
                self.loop.call_at(self.due, self._next)
                return

    def _frame(self) -> bytes:
        event = self.events[self.sent]
        self.sent += 1
        return frame(with_id(event, self.request_id, chat=self.chat))


async def serve(engine: Engine, *, port: int | None = None, uds: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT; prints the address when it listens."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if uds:
        server = await loop.create_unix_server(lambda: Exchange(engine), uds, backlog=4096)
        address = f"unix:{uds}"
    else:
        server = await loop.create_server(lambda: Exchange(engine), "127.0.0.1", port or 0, backlog=4096)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(address, flush=True)
    await stop.wait()
    server.close()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.mock", description=(__doc__ or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int, help="0 takes a free one")
    where.add_argument("--uds", help="a Unix socket instead")
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--ttft", type=float, default=0.0, help="seconds before the first byte")
    parser.add_argument("--itl", type=float, default=0.0, help="seconds between two chunks")
    parser.add_argument("--width", type=int, default=5, help="letters in a token")
    parser.add_argument(
        "--slots", type=int, default=0, help="requests that are within their ttft at once; 0: any number"
    )
    parser.add_argument("--base-model", default="base")
    parser.add_argument("--max-loras", type=int, default=16)
    told = parser.parse_args(arguments)
    raise_limit()
    if told.uds:
        Path(told.uds).unlink(missing_ok=True)
    pace = Pace(told.tokens, told.ttft, told.itl, told.width)
    engine = Engine(pace, slots=told.slots, base_model=told.base_model, max_loras=told.max_loras)
    uvloop.run(serve(engine, port=told.port, uds=told.uds))


if __name__ == "__main__":
    main()
