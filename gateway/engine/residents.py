"""The adapters inside a running vLLM: loaded, tried, kept from being dropped, evicted. It knows vLLM and no HTTP.

Three rules keep the engine alive (each broken one ends EngineCore, and with it every tenant's streams):
- An adapter that vLLM drops by itself is read from disk again inside a model step. So we never let it drop one: a load
  beyond `max_cpu_loras` is refused.
- One that a running request still needs is read again in the same way. So it is not evicted before that request ends,
  and `gatekeeper.py` turns away what comes too late.
- When every slot is pinned, activating another adapter raises inside a step. So one slot always stays free.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
import uuid
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi.responses import JSONResponse
from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from gateway.engine.gatekeeper import IS_HERE

FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What a directory must hold. vLLM would also take a pickle (`adapter_model.bin`); we never let it see only that."""

LOOK_SECONDS = 30.0
"""How old the workers' word on what they hold may be. Nothing but us loads or evicts, so it only ages by a crash."""

LIKELIEST = 5
FLOOR = -9999.0
"""What vLLM's API writes for minus infinity, which is no JSON."""

Trial = dict[str, Any]
"""{"text": str, "logprobs": {token: nats, or None where it is no finite number}}"""

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
        self._doubts = 0
        self._guarded = False
        self._looked = -LOOK_SECONDS
        self.boot_id = uuid.uuid4().hex

    async def look_for_gatekeeper(self) -> None:
        """Whether EngineCore turns away requests for what it does not hold; called once, before anything is loaded."""
        try:
            self._guarded = await self._engine.engine_core.call_utility_async(IS_HERE) is True
        except Exception:  # whatever it says: then loads and canaries go one after the other
            self._guarded = False

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

    async def load(self, name: str, path: str, *, pin: bool, prompt: str | None) -> tuple[bool, Trial | None]:
        """Make an adapter resident; False if it already was. When it fails, nothing of it stays.

        With a `prompt` the adapter also answers it with one token, so that a load and its canary wait for the engine's
        running step once instead of three times. No trial in the answer: it could not be made, ask again.
        """
        if not self._limits:
            raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, "This engine was started without --enable-lora.")
        async with self._changing:
            held = await self._certain()
            known = self._models.lora_requests.get(name)
            if known is not None and known.lora_path != path:
                raise RefusalError(
                    HTTPStatus.CONFLICT, f"{name} is resident with other weights: a name never changes them."
                )
            resident = known is not None and known.lora_int_id in held
            adapter = known or LoRARequest(name, self._models.lora_id_counter.inc(1), path)
            if resident:
                trial = await self._try(adapter, prompt)
            else:
                trial = await self._add_and_try(adapter, prompt, held)
            if pin:
                await self._pin(name)
        return not resident, trial

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
            self._doubts += 1
            return True

    async def _add_and_try(self, adapter: LoRARequest, prompt: str | None, held: frozenset[int]) -> Trial | None:
        """With a gatekeeper in EngineCore the request is sent right behind the load: both are taken in before the
        engine's next step, in this order, and the request is turned away if the load fails.
        """
        self._check(adapter, held)
        if not self._guarded:
            await self._add(adapter)
            return await self._try(adapter, prompt)
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            # It begins when the load first waits, and by then the load is on its way.
            trying = group.create_task(self._try(adapter, prompt))
            try:
                await self._add(adapter)
            except (RefusalError, EngineDeadError) as error:  # past the group, which would wrap it
                failure = error
                trying.cancel()
        if failure is not None:
            raise failure
        return trying.result()

    def _check(self, adapter: LoRARequest, held: frozenset[int]) -> None:
        check_directory(adapter.lora_path)
        if self._models.is_base_model(adapter.lora_name):
            raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, f"{adapter.lora_name} is the base model's name.")
        if len(held) >= self._limits.max_cpu_loras:
            sentence = f"The engine holds {len(held)} adapters, its limit: evict one first, or raise max_cpu_loras."
            raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, sentence)

    async def _add(self, adapter: LoRARequest) -> None:
        try:
            if not await self._engine.add_lora(adapter):
                raise RuntimeError("the engine did not take the adapter")
        except Exception as error:
            await self._engine.remove_lora(adapter.lora_int_id)  # it may be registered and not activated
            if isinstance(error, EngineDeadError):
                raise
            raise RefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, reason(error)) from error
        self._models.lora_requests[adapter.lora_name] = adapter
        self._held |= {adapter.lora_int_id}

    async def _try(self, adapter: LoRARequest, prompt: str | None) -> Trial | None:
        """One token, and the likeliest in its place; None when none was asked for, or the engine gave none."""
        if prompt is None:
            return None
        asked = SamplingParams(max_tokens=1, temperature=0, logprobs=LIKELIEST)
        try:
            async for answer in self._engine.generate(prompt, asked, uuid.uuid4().hex, lora_request=adapter):
                told = answer.outputs[0]
                if answer.finished and told.logprobs:
                    return {"text": told.text, "logprobs": _readable(told.logprobs[0], told.token_ids[0])}
        except Exception:  # whatever it was: the load's own failure is told by the load
            return None
        return None

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

    async def _certain(self) -> frozenset[int]:
        """What is held, as far as a load must know it: asking the workers costs a step of everybody's streams.

        Nobody but us loads or evicts. Each eviction may have left one behind (see `_sweep`), which takes a place.
        """
        if self._looked < 0 or len(self._held) + self._doubts >= self._limits.max_cpu_loras:
            return await self._sweep()
        return self._held

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
        self._held, self._looked, self._doubts = held, time.monotonic(), 0
        return held

    def _running(self, number: int) -> int:
        """How many requests the engine is working on, or has queued, with this adapter."""
        states = self._engine.output_processor.request_states.values()
        return sum(1 for state in states if state.lora_request is not None and state.lora_request.lora_int_id == number)


def _readable(ranked: Mapping[int, Any], chosen: int) -> dict[str, float | None]:
    """Tokens named and log-probabilities floored as vLLM's completions do; None for what is no number, and for a chosen
    token at the floor, which is what overflowing weights make of it.
    """
    return {
        str(told.decoded_token): None
        if math.isnan(told.logprob) or (token == chosen and told.logprob <= FLOOR)
        else max(told.logprob, FLOOR)
        for token, told in ranked.items()
    }


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
