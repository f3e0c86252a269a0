"""The fake engine's routes: vLLM's, our plugin's, and `/fake/*` for faults and for looking inside.

GET  /fake/state    → {boot_id, in_flight, running, waiting, finished, aborted, loads, evictions, connections, requests}
GET  /fake/faults   → the switches as they are
POST /fake/faults   {switch: value, …} sets those named (see `fake_engine.Faults`); `reboot` and `die` happen at once
POST /fake/reset    → all switches off, counters and remembered requests cleared
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gateway.engine.fake_answers import prompt_of
from gateway.engine.fake_engine import FakeEngine, Faults, Refused
from gateway.engine.fake_http import Exchange
from gateway.engine.fake_openai import Job, read_job
from gateway.engine.fake_render import encode, events, whole

Route = Callable[["Routes", Exchange, Any], Awaitable[None]]
NEVER = 10**9


class Routes:
    """One engine's answers to exchanges."""

    def __init__(self, engine: FakeEngine, *, connections: Callable[[], int]) -> None:
        self._engine = engine
        self._connections = connections

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.path.partition("?")[0]
        body = self._remember(exchange, path)
        route = ROUTES.get((exchange.method, path))
        try:
            if route is None:
                raise Refused(404, "Not Found", type="Not Found")
            await route(self, exchange, body)
        except Refused as error:
            await exchange.reply(error.status, encode(error.body()))

    def _remember(self, exchange: Exchange, path: str) -> Any:
        try:
            body = msgspec.json.decode(exchange.body) if exchange.body else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            body = None
        if exchange.method == "POST" and not path.startswith("/fake/"):
            self._engine.seen.append({"path": path, "headers": exchange.headers, "body": body})
        return body

    async def chat(self, exchange: Exchange, body: Any) -> None:
        await self._generate(exchange, body, chat=True)

    async def complete(self, exchange: Exchange, body: Any) -> None:
        await self._generate(exchange, body, chat=False)

    async def _generate(self, exchange: Exchange, body: Any, *, chat: bool) -> None:
        engine = self._engine
        job = read_job(engine, body, chat=chat, request_id=exchange.headers.get("x-request-id"))
        name = job.adapter or ""
        engine.counts["in_flight"] += 1
        engine.in_use[name] += 1
        in_use = engine.in_use
        try:
            await self._generate_faulty(exchange, job)
            engine.counts["finished"] += 1
        except (asyncio.CancelledError, ConnectionResetError):
            engine.counts["aborted"] += 1
            raise
        finally:
            engine.counts["in_flight"] -= 1
            in_use[name] -= 1

    async def _generate_faulty(self, exchange: Exchange, job: Job) -> None:
        engine, faults = self._engine, self._engine.faults
        hit = faults.hit(job.model)
        if hit and faults.fail_requests > 0:
            faults.fail_requests -= 1
            raise Refused(
                500, "EngineCore encountered an issue. See stack trace for the root cause.", type="InternalServerError"
            )
        if hit and faults.hang:
            await asyncio.sleep(NEVER)
        if job.stream:
            await exchange.begin_stream()
        async with engine.batch.place(job.adapter):
            await _pause(engine.setting("ttft"))
            if job.stream:
                await self._stream(exchange, job)
                return
            await _pause(engine.setting("itl") * (job.tokens - 1))
        engine.counts["generated"] += job.tokens
        if hit and faults.die_after_chunks is not None:
            engine.die()
        if hit and faults.cut_after_chunks is not None:
            await exchange.reply_cut(whole(job))
        else:
            await exchange.reply(200, whole(job))

    async def _stream(self, exchange: Exchange, job: Job) -> None:
        engine, itl = self._engine, self._engine.setting("itl")
        for sent, (event, timed) in enumerate(events(job)):
            if timed and itl and sent > 1:
                await asyncio.sleep(itl)
            if engine.faults.hit(job.model) and await self._break(exchange, sent):
                return
            await exchange.event(event)
            engine.counts["generated"] += timed
        await exchange.event(b"[DONE]")
        await exchange.end_stream()

    async def _break(self, exchange: Exchange, sent: int) -> bool:
        """Do what the faults want after `sent` events; true if the stream is over."""
        faults = self._engine.faults
        if sent == faults.die_after_chunks:
            await asyncio.sleep(0.01)  # what was written has left
            self._engine.die()
        if sent == faults.stall_after_chunks:
            await asyncio.sleep(NEVER)
        if sent == faults.cut_after_chunks:
            exchange.cut()
            return True
        if sent == faults.error_after_chunks:
            error = Refused(500, "Internal server error", type="InternalServerError")
            await exchange.event(encode(error.body()))
            await exchange.event(b"[DONE]")
            await exchange.end_stream()
            return True
        return False

    async def models(self, exchange: Exchange, _: Any) -> None:
        base, length = self._engine.options.base_model, self._engine.options.max_model_len
        card = {"object": "model", "created": 1, "owned_by": "vllm", "permission": []}
        cards = [{"id": base, **card, "root": base, "parent": None, "max_model_len": length}]
        for name, adapter in self._engine.adapters.items():
            cards.append({"id": name, **card, "root": adapter.path, "parent": base, "max_model_len": None})
        await exchange.reply(200, encode({"object": "list", "data": cards}))

    async def health(self, exchange: Exchange, _: Any) -> None:
        await exchange.reply(self._engine.faults.health, b"", content_type=b"text/plain")

    async def tokenize(self, exchange: Exchange, body: Any) -> None:
        body = body if isinstance(body, dict) else {}
        self._engine.voice(body.get("model"))
        words = str(body.get("prompt") or prompt_of(body.get("messages") or [])).split()
        tokens = [int.from_bytes(word.encode()[:3], "big") for word in words]
        length = self._engine.options.max_model_len
        await exchange.reply(
            200, encode({"count": len(tokens), "max_model_len": length, "tokens": tokens, "token_strs": None})
        )

    async def metrics(self, exchange: Exchange, _: Any) -> None:
        engine = self._engine
        label = f'{{model_name="{engine.options.base_model}"}}'
        values = {
            "num_requests_running gauge": engine.batch.running,
            "num_requests_waiting gauge": engine.batch.waiting,
            "generation_tokens_total counter": engine.counts["generated"],
            "request_success_total counter": engine.counts["finished"],
        }
        lines = []
        for key, value in values.items():
            name, kind = key.split()
            lines += [f"# TYPE vllm:{name.removesuffix('_total')} {kind}", f"vllm:{name}{label} {value}"]
        await exchange.reply(200, ("\n".join(lines) + "\n").encode(), content_type=b"text/plain; version=0.0.4")

    async def engine(self, exchange: Exchange, _: Any) -> None:
        await exchange.reply(200, encode(self._engine.status()))

    async def load(self, exchange: Exchange, body: Any) -> None:
        name, path = _text(body, "name"), _text(body, "path")
        loaded = await self._engine.load(name, path, pin=body.get("pin") is True)
        await exchange.reply(200, encode({"name": name, "loaded": loaded}))

    async def pin(self, exchange: Exchange, body: Any) -> None:
        self._engine.pin(_text(body, "name"))
        await exchange.reply(200, encode({"name": body["name"], "pinned": True}))

    async def evict(self, exchange: Exchange, body: Any) -> None:
        evicted = self._engine.evict(_text(body, "name"))
        await exchange.reply(200, encode({"name": body["name"], "evicted": evicted}))

    async def state(self, exchange: Exchange, _: Any) -> None:
        engine = self._engine
        counts = {name: engine.counts[name] for name in ("in_flight", "finished", "aborted", "loads", "evictions")}
        told = {"boot_id": engine.boot_id, **counts, "running": engine.batch.running, "waiting": engine.batch.waiting}
        await exchange.reply(200, encode({**told, "connections": self._connections(), "requests": list(engine.seen)}))

    async def faults(self, exchange: Exchange, body: Any) -> None:
        if exchange.method == "POST":
            try:
                self._engine.switch(body if isinstance(body, dict) else {})
            except ValueError as error:
                raise Refused(400, str(error)) from None
        await exchange.reply(200, encode(dataclasses.asdict(self._engine.faults)))

    async def reset(self, exchange: Exchange, _: Any) -> None:
        self._engine.switch(dataclasses.asdict(Faults()))
        self._engine.seen.clear()
        for name in ("finished", "aborted", "loads", "evictions"):
            self._engine.counts[name] = 0
        await exchange.reply(200, b"{}")


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _text(body: Any, field: str) -> str:
    value = body.get(field) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value or not value.isprintable():
        raise Refused(400, f"`{field}` must be a printable text.", type="Bad Request")
    return value


ROUTES: dict[tuple[str, str], Route] = {
    ("POST", "/v1/chat/completions"): Routes.chat,
    ("POST", "/v1/completions"): Routes.complete,
    ("GET", "/v1/models"): Routes.models,
    ("GET", "/health"): Routes.health,
    ("POST", "/tokenize"): Routes.tokenize,
    ("GET", "/metrics"): Routes.metrics,
    ("GET", "/tuneloop/engine"): Routes.engine,
    ("POST", "/tuneloop/adapters"): Routes.load,
    ("POST", "/tuneloop/adapters/pin"): Routes.pin,
    ("POST", "/tuneloop/adapters/evict"): Routes.evict,
    ("GET", "/fake/state"): Routes.state,
    ("GET", "/fake/faults"): Routes.faults,
    ("POST", "/fake/faults"): Routes.faults,
    ("POST", "/fake/reset"): Routes.reset,
}
