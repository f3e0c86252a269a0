"""Runs inside vLLM: the `vllm.endpoint_plugins` plugin that puts adapters on the engine and truly takes them off again.

The wire contract is in `base.py`. This module knows vLLM and nothing of the gateway: it imports only the standard
library, FastAPI and vllm, so that it works in an engine's own environment (docs/engine.md).

Why not vLLM's own switch (VLLM_ALLOW_RUNTIME_LORA_UPDATING): its unload only forgets the name and leaves the weights in
the engine, it downloads what is no local path, and its routes are open to every caller.

Three rules keep the engine alive (each broken one ends EngineCore, and with it every tenant's streams):
- An adapter that vLLM drops by itself is read from disk again inside a model step. So we never let it drop one: a load
  beyond `max_cpu_loras` is refused.
- One that a running request still needs is read again in the same way. So it is not evicted before that request ends.
- When every slot is pinned, activating another adapter raises inside a step. So one slot always stays free.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import re
import signal
import sys
import time
import uuid
from argparse import Namespace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What a directory must hold. vLLM would also take a pickle (`adapter_model.bin`); we never let it see only that."""

LOOK_SECONDS = 30.0
"""How old the workers' word on what they hold may be. Nothing but us loads or evicts, so it only ages by a crash."""

_WORKER_SAYS = re.compile(r"Worker failed with error '(.*)', please check", re.DOTALL)
_CALL_SAYS = re.compile(r"^Call to \w+ method failed: ", re.DOTALL)
_PATH = re.compile(r"(?<![\w.:])/(?:[\w.@+~-]+/?)+")


class RefusalError(Exception):
    """What the caller gets instead of an answer: a status and a sentence without paths."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status

    def response(self) -> JSONResponse:
        """vLLM's own error shape, so that one parser reads both."""
        error = {"message": str(self), "type": self.status.phrase, "param": None, "code": self.status.value}
        return JSONResponse({"error": error}, status_code=self.status.value)


class Residents:
    """The adapters this engine holds, changed one at a time: a load stops the whole engine for its duration anyway.

    vLLM keeps two books: the names a request may ask for (`models.lora_requests`) and the weights in the workers (by a
    positive integer). A name is entered after its weights are there, and struck out before they go.
    """

    def __init__(self, engine: Any, models: Any) -> None:
        self._engine, self._models, config = engine, models, engine.vllm_config
        self._limits = config.lora_config
        self._seqs = config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size  # it is a rank's
        self._pinned: set[str] = set()
        self._changing = asyncio.Lock()
        self._held: frozenset[int] = frozenset()
        self._looked = -LOOK_SECONDS
        self.boot_id = uuid.uuid4().hex

    async def status(self) -> dict[str, Any]:
        """What the workers said when last asked. Not each time: after a call they poll at full speed for a second."""
        async with self._changing:
            if self._limits and time.monotonic() - self._looked > LOOK_SECONDS:
                await self._sweep()
            held = self._held
        adapters = [
            {"name": name, "path": known.lora_path, "pinned": name in self._pinned}
            for name, known in self._models.lora_requests.items()
            if known.lora_int_id in held
        ]
        return {
            "boot_id": self.boot_id,
            "base_model": self._models.base_model_paths[0].name,
            **{name: getattr(self._limits, name, 0) for name in ("max_lora_rank", "max_loras", "max_cpu_loras")},
            "max_model_len": self._engine.model_config.max_model_len,
            "max_num_seqs": self._seqs,
            "adapters": adapters,
        }

    async def load(self, name: str, path: str, *, pin: bool) -> bool:
        """Make an adapter resident; False if it already was. When it fails, nothing of it stays."""
        if not self._limits:
            raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, "This engine was started without --enable-lora.")
        async with self._changing:
            held = await self._sweep()
            known = self._models.lora_requests.get(name)
            if known is not None and known.lora_path != path:
                raise RefusalError(
                    HTTPStatus.CONFLICT, f"{name} is resident with other weights: a name never changes them."
                )
            resident = known is not None and known.lora_int_id in held
            if not resident:
                await self._add(name, path, known, held)
            if pin:
                await self._pin(name)
        return not resident

    async def pin(self, name: str) -> None:
        """Keep an adapter in one of the engine's slots."""
        async with self._changing:
            await self._pin(name)

    async def evict(self, name: str) -> bool:
        """Free an adapter's memory; False if it was not resident. RefusalError while a request runs on it."""
        async with self._changing:
            known = self._models.lora_requests.get(name)
            if known is None:
                return False
            running = self._running(known.lora_int_id)
            if running:
                raise RefusalError(
                    HTTPStatus.CONFLICT, f"{running} running requests still use {name}: evict it afterwards."
                )
            del self._models.lora_requests[name]
            self._pinned.discard(name)
            await self._engine.remove_lora(known.lora_int_id)
            self._held -= {known.lora_int_id}
            return True

    async def _add(self, name: str, path: str, known: Any, held: frozenset[int]) -> None:
        check_directory(path)
        if self._models.is_base_model(name):
            raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{name} is the base model's name.")
        if len(held) >= self._limits.max_cpu_loras:
            sentence = f"The engine holds {len(held)} adapters, its limit: evict one first, or raise max_cpu_loras."
            raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
        adapter = known or LoRARequest(name, self._models.lora_id_counter.inc(1), path)
        try:
            if not await self._engine.add_lora(adapter):
                raise RuntimeError("the engine did not take the adapter")
        except Exception as error:
            await self._engine.remove_lora(adapter.lora_int_id)  # it may be registered and not activated
            if isinstance(error, EngineDeadError):
                raise
            raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, reason(error)) from error
        self._models.lora_requests[name] = adapter
        self._held |= {adapter.lora_int_id}

    async def _pin(self, name: str) -> None:
        known = self._models.lora_requests.get(name)
        if known is None:
            raise RefusalError(HTTPStatus.NOT_FOUND, f"{name} is not resident.")
        if len(self._pinned | {name}) >= self._limits.max_loras:
            full = f"{len(self._pinned)} of {self._limits.max_loras} slots are pinned and one must stay free"
            sentence = f"{full}: evict a pinned adapter, or raise max_loras."
            raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
        await self._engine.pin_lora(known.lora_int_id)
        self._pinned.add(name)

    async def _sweep(self) -> frozenset[int]:
        """The workers' adapters by number, after freeing those that no name stands for and no request runs on.

        Such a one appears when a request that was being tokenised during an eviction reached the engine after it.
        """
        held = frozenset(await self._engine.list_loras())
        named = {known.lora_int_id for known in self._models.lora_requests.values()}
        for leftover in held - named:
            if not self._running(leftover):
                await self._engine.remove_lora(leftover)
                held -= {leftover}
        self._held, self._looked = held, time.monotonic()
        return held

    def _running(self, number: int) -> int:
        """How many requests the engine is working on, or has queued, with this adapter."""
        states = self._engine.output_processor.request_states.values()
        return sum(1 for state in states if state.lora_request is not None and state.lora_request.lora_int_id == number)


def check_directory(path: str) -> None:
    """Refuse what vLLM would try to download (anything that is no absolute path) and what it would read as a pickle."""
    directory = Path(path)
    if not directory.is_absolute():
        raise RefusalError(HTTPStatus.NOT_FOUND, "The adapter's path must be absolute: the engine downloads nothing.")
    if not directory.is_dir():
        raise RefusalError(HTTPStatus.NOT_FOUND, "The engine sees no such adapter directory.")
    for file in FILES:
        if not (directory / file).is_file():
            raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, f"The adapter's directory holds no {file}.")


def reason(error: Exception) -> str:
    """Why vLLM refused an adapter, in its own words without its wrapping and without paths."""
    text = _CALL_SAYS.sub("", str(error))
    inner = _WORKER_SAYS.search(text)
    return "vLLM refuses the adapter: " + _PATH.sub("(path)", inner[1] if inner else text)


class TuneloopPlugin:
    """The entry point that vLLM finds under the name `tuneloop` when VLLM_PLUGINS names it."""

    name = "tuneloop"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._residents: Residents | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Add our four routes; vLLM calls this once, before the engine is handed over."""
        app.add_api_route("/tuneloop/engine", self._status, methods=["GET"], include_in_schema=False)
        app.add_api_route("/tuneloop/adapters", self._load, methods=["POST"], include_in_schema=False)
        app.add_api_route("/tuneloop/adapters/pin", self._pin, methods=["POST"], include_in_schema=False)
        app.add_api_route("/tuneloop/adapters/evict", self._evict, methods=["POST"], include_in_schema=False)
        app.add_exception_handler(RefusalError, _refused)
        app.add_exception_handler(EngineDeadError, _dead)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Take the engine and the book of names; called once, after both exist."""
        self._residents = Residents(engine_client, state.openai_serving_models)

    async def _status(self) -> JSONResponse:
        return JSONResponse(await self._engine().status())

    async def _load(self, request: Request) -> JSONResponse:
        body = await _body(request)
        name, path = _text(body, "name"), _text(body, "path")
        loaded = await self._engine().load(name, path, pin=body.get("pin") is True)
        return JSONResponse({"name": name, "loaded": loaded})

    async def _pin(self, request: Request) -> JSONResponse:
        name = _text(await _body(request), "name")
        await self._engine().pin(name)
        return JSONResponse({"name": name, "pinned": True})

    async def _evict(self, request: Request) -> JSONResponse:
        name = _text(await _body(request), "name")
        return JSONResponse({"name": name, "evicted": await self._engine().evict(name)})

    def _engine(self) -> Residents:
        if self._residents is None:
            raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine is starting.")
        return self._residents


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusalError)
    return error.response()


def _dead(_: Request, __: Exception) -> JSONResponse:
    return RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine has died and is being restarted.").response()


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise RefusalError(HTTPStatus.BAD_REQUEST, "The body must be a JSON object.")
    return body


def _text(body: dict[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise RefusalError(HTTPStatus.BAD_REQUEST, f"`{field}` must be a printable text.")
    return value


def prepare_process() -> None:
    """The `vllm.general_plugins` half: vLLM calls it in each of its processes, before the model is loaded."""
    die_with_parent()
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        type(current_platform).get_punica_wrapper = classmethod(lambda _: "gateway.engine.cpu_lora.GroupedLora")


def die_with_parent() -> None:
    """In EngineCore and in the workers, ask the kernel to be killed with the parent.

    Without it a `kill -9` of the API server leaves EngineCore alive with the model in memory (vllm#55510). In the API
    server itself it does nothing: whoever started that may leave it running on purpose.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not sys.platform.startswith("linux"):
        return
    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)
