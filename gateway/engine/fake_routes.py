"""The fake engine's routes: vLLM's, our plugin's, and `/fake/*` for faults and for looking inside.

GET  /fake/state    → {boot_id, in_flight, running, waiting, finished, aborted, loads, evictions, connections, requests}
GET  /fake/faults   → the switches as they are
POST /fake/faults   {switch: value, …} sets those named (see `fake_engine.Faults`); `reboot` and `die` happen at once
POST /fake/reset    → all switches off, counters and remembered requests cleared
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from gateway.engine.fake_answers import prompt_of, token_ids
from gateway.engine.fake_embeddings import Embedding, read_embedding
from gateway.engine.fake_engine import FakeEngine, Faults, Refused
from gateway.engine.fake_http import Exchange
from gateway.engine.fake_messages import broken_message, message_events, whole_message
from gateway.engine.fake_openai import Job, read_job
from gateway.engine.fake_render import encode, events, whole
from gateway.engine.fake_responses import response_events, whole_response

Route = Callable[["Routes", Exchange, Any], Awaitable[None]]
NEVER = 10**9
WHOLE = {"chat": whole, "text": whole, "responses": whole_response, "messages": whole_message}
EVENTS = {"responses": response_events, "messages": message_events}


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
            if route is None or path in self._engine.faults.lacks:
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
        await self._generate(exchange, body, kind="chat")

    async def complete(self, exchange: Exchange, body: Any) -> None:
        await self._generate(exchange, body, kind="text")

    async def respond(self, exchange: Exchange, body: Any) -> None:
        await self._generate(exchange, body, kind="responses")

    async def message(self, exchange: Exchange, body: Any) -> None:
        await self._generate(exchange, body, kind="messages")

    async def embed(self, exchange: Exchange, body: Any) -> None:
        embedding = read_embedding(self._engine, body, request_id=exchange.headers.get("x-request-id"))
        await self._counted(embedding, self._embed(exchange, embedding))

    async def _embed(self, exchange: Exchange, embedding: Embedding) -> None:
        await self._fail(embedding.model)
        async with self._engine.batch.place(embedding.adapter):
            await _pause(self._engine.setting("ttft"))
        await exchange.reply(200, embedding.body())

    async def _generate(self, exchange: Exchange, body: Any, *, kind: str) -> None:
        job = read_job(self._engine, body, kind=kind, request_id=exchange.headers.get("x-request-id"))
        await self._counted(job, self._answer(exchange, job))

    async def _counted(self, job: Job | Embedding, work: Coroutine[Any, Any, None]) -> None:
        engine, name = self._engine, job.adapter or ""
        engine.counts["in_flight"] += 1
        engine.in_use[name] += 1
        in_use = engine.in_use
        try:
            await work
            engine.counts["finished"] += 1
        except (asyncio.CancelledError, ConnectionResetError):
            engine.counts["aborted"] += 1
            raise
        finally:
            engine.counts["in_flight"] -= 1
            in_use[name] -= 1

    async def _fail(self, model: str) -> None:
        """The faults that come before anything else."""
        faults = self._engine.faults
        if not faults.hit(model):
            return
        if faults.fail_requests > 0:
            faults.fail_requests -= 1
            raise Refused(
                500, "EngineCore encountered an issue. See stack trace for the root cause.", type="InternalServerError"
            )
        if faults.hang:
            await asyncio.sleep(NEVER)

    async def _answer(self, exchange: Exchange, job: Job) -> None:
        engine, faults = self._engine, self._engine.faults
        await self._fail(job.model)
        if job.stream:
            await exchange.begin_stream()
        async with engine.batch.place(job.adapter):
            await _pause(engine.setting("ttft"))
            if job.stream:
                await self._stream(exchange, job)
                return
            await _pause(engine.setting("itl") * (job.tokens - 1))
        engine.counts["generated"] += job.tokens
        body, hit = WHOLE[job.kind](job), faults.hit(job.model)
        if hit and faults.die_after_chunks is not None:
            engine.die()
        if hit and faults.cut_after_chunks is not None:
            await exchange.reply_cut(body)
        else:
            await exchange.reply(200, body)

    async def _stream(self, exchange: Exchange, job: Job) -> None:
        engine, itl, named = self._engine, self._engine.setting("itl"), job.kind in EVENTS
        send = exchange.frame if named else exchange.event
        for sent, (event, timed) in enumerate(EVENTS[job.kind](job) if named else events(job)):
            if timed and itl and sent > 1:
                await asyncio.sleep(itl)
            if engine.faults.hit(job.model) and await self._break(exchange, sent, job.kind):
                return
            await send(event)
            engine.counts["generated"] += timed
        if not named:
            await exchange.event(b"[DONE]")
        await exchange.end_stream()

    async def _break(self, exchange: Exchange, sent: int, kind: str) -> bool:
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
            await self._err(exchange, kind)
            return True
        return False

    async def _err(self, exchange: Exchange, kind: str) -> None:
        """End a stream as vLLM does when the generation fails; of a response nothing more comes than a cut."""
        if kind == "responses":
            exchange.cut()
            return
        if kind == "messages":
            await exchange.frame(broken_message())
        else:
            await exchange.event(encode(Refused(500, "Internal server error", type="InternalServerError").body()))
            await exchange.event(b"[DONE]")
        await exchange.end_stream()

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
        text = str(body.get("prompt") or prompt_of(body.get("messages") or []))
        tokens = token_ids(text + " <answer>" * ("messages" in body and body.get("add_generation_prompt") is not False))
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
        trial = {"probe": await self._try(name, _text(body, "probe"))} if "probe" in body else {}
        await exchange.reply(200, encode({"name": name, "loaded": loaded, **trial}))

    async def _try(self, name: str, prompt: str) -> dict[str, Any]:
        """The canary of a load: a completion of one token that is no request of anybody's."""
        asked = {"model": name, "prompt": prompt, "max_tokens": 1, "logprobs": 5}
        job = read_job(self._engine, asked, kind="text", request_id=None)
        if self._engine.faults.hit(name) and self._engine.faults.hang:
            await asyncio.sleep(NEVER)
        async with self._engine.batch.place(name):
            await _pause(self._engine.setting("ttft"))
        if job.nan:
            return {"text": "!", "logprobs": {"!": None}}
        choice = msgspec.json.decode(whole(job))["choices"][0]
        return {"text": choice["text"], "logprobs": choice["logprobs"]["top_logprobs"][0]}

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
    ("POST", "/v1/responses"): Routes.respond,
    ("POST", "/v1/messages"): Routes.message,
    ("POST", "/v1/embeddings"): Routes.embed,
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
