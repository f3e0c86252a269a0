"""Runs inside vLLM: the `vllm.endpoint_plugins` plugin that puts adapters on the engine and truly takes them off again.

The wire contract is in `base.py`. This module knows vLLM and nothing of the gateway: it imports only the standard
library, FastAPI and vllm, so that it works in an engine's own environment (docs/engine.md).

Why not vLLM's own switch (VLLM_ALLOW_RUNTIME_LORA_UPDATING): its unload only forgets the name and leaves the weights in
the engine, it downloads what is no local path, and its routes are open to every caller.

What it does with adapters is in `residents.py`; here are the routes, and what each of vLLM's processes is told.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from argparse import Namespace
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from vllm.v1.engine.exceptions import EngineDeadError

from gateway.engine import gatekeeper
from gateway.engine.residents import RefusalError, Residents


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
        residents = Residents(engine_client, state.openai_serving_models)
        await residents.look_for_gatekeeper()
        self._residents = residents

    async def _status(self) -> JSONResponse:
        return JSONResponse(await self._engine().status())

    async def _load(self, request: Request) -> JSONResponse:
        body = await _body(request)
        name, path = _text(body, "name"), _text(body, "path")
        prompt = _text(body, "probe") if "probe" in body else None
        loaded, trial = await self._engine().load(name, path, pin=body.get("pin") is True, prompt=prompt)
        return JSONResponse({"name": name, "loaded": loaded} | ({"probe": trial} if trial else {}))

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
    gatekeeper.install()
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
