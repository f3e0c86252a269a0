"""The fake engine's insides: which adapters it holds, how many requests run at once, and which faults are switched on.

It follows our plugin (`plugin.py`) in what it refuses and vLLM in what it schedules. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from http import HTTPStatus
from pathlib import Path
from typing import Any

from gateway.engine.fake_answers import Voice, word_of
from gateway.engine.fake_http import Wire


@dataclass(frozen=True, slots=True)
class Options:
    """What the fake is started with. Times in seconds; `tokens` is the length of an answer without `max_tokens`.

    `slots`: requests that run at once (vLLM's `max_num_seqs`, 128 or more there; here enough for 2,000 streams).
    """

    base_model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    slots: int = 2048
    ttft: float = 0.0
    itl: float = 0.0
    tokens: int = 16
    max_lora_rank: int = 64
    max_loras: int = 4
    max_cpu_loras: int = 16
    max_model_len: int = 4096
    load_seconds: float = 0.0
    remember: int = 200


@dataclass(slots=True)
class Faults:
    """The switches of `POST /fake/faults`; each request sets only those it names. `only` limits those on generation to
    the models it lists. Counts of chunks are of one stream's events; None and 0 and [] mean off."""

    fail_loads: int = 0  # the next N loads answer 500
    refuse: list[str] = field(default_factory=list)  # loads of these adapters answer 422
    fail_requests: int = 0  # the next N generations answer 500
    hang: bool = False  # generation never answers, while /health says 200
    die_after_chunks: int | None = None  # the process is gone, as after kill -9
    stall_after_chunks: int | None = None  # the stream falls silent
    cut_after_chunks: int | None = None  # the connection closes; an answer in one piece is cut in half
    error_after_chunks: int | None = None  # an error event, then [DONE], as vLLM does
    nan: list[str] = field(default_factory=list)  # models whose log-probabilities are NaN
    inert: list[str] = field(default_factory=list)  # adapters that answer exactly as the base model does
    only: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)  # paths that do not exist, as those of what vLLM's model cannot do
    health: int = 200
    slice_bytes: int = 0
    close_idle: bool = False
    drop_reused: bool = False
    load_seconds: float | None = None  # these four replace the options
    ttft: float | None = None
    itl: float | None = None
    tokens: int | None = None

    def switch(self, changes: dict[str, Any]) -> None:
        """Set the named switches. Raises ValueError for an unknown one."""
        unknown = changes.keys() - {f.name for f in fields(self)}
        if unknown:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
        for name, value in changes.items():
            setattr(self, name, value)

    def hit(self, model: str) -> bool:
        return not self.only or model in self.only


class Refused(Exception):
    """An answer in vLLM's error shape."""

    def __init__(self, status: int, message: str, *, type: str = "BadRequestError", param: str | None = None) -> None:  # noqa: A002 — vLLM's word
        super().__init__(message)
        self.status, self.type, self.param = status, type, param

    def body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.type, "param": self.param, "code": self.status}}


@dataclass(slots=True)
class Adapter:
    path: str
    word: str
    pinned: bool = False


class Batch:
    """Who runs: at most `slots` requests of at most `max_loras` adapters. Those that do not fit wait, and are passed by
    those that do, without fairness (vllm#16876)."""

    def __init__(self, slots: int, max_loras: int) -> None:
        self._slots = slots
        self._max_loras = max_loras
        self._waiting: deque[tuple[str | None, asyncio.Future[None]]] = deque()
        self.running = 0
        self.of: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def place(self, adapter: str | None) -> AsyncIterator[None]:
        """Wait for a place and hold it."""
        if not self._fits(adapter):
            await self._queue(adapter)
        else:
            self._enter(adapter)
        try:
            yield
        finally:
            self._leave(adapter)

    async def _queue(self, adapter: str | None) -> None:
        entry = (adapter, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            elif not entry[1].cancelled():
                self._leave(adapter)  # a place was given to somebody who had left
            raise

    def _fits(self, adapter: str | None) -> bool:
        return self.running < self._slots and (adapter is None or adapter in self.of or len(self.of) < self._max_loras)

    def _enter(self, adapter: str | None) -> None:
        self.running += 1
        if adapter is not None:
            self.of[adapter] += 1

    def _leave(self, adapter: str | None) -> None:
        self.running -= 1
        if adapter is not None:
            self.of[adapter] -= 1
            if not self.of[adapter]:
                del self.of[adapter]
        for entry in tuple(self._waiting):
            if self.running >= self._slots:
                break
            if self._fits(entry[0]):
                self._waiting.remove(entry)
                if not entry[1].done():
                    self._enter(entry[0])
                    entry[1].set_result(None)


class FakeEngine:
    """The state of one engine. `die` ends it as a kill -9 would."""

    def __init__(self, options: Options, wire: Wire, *, die: Callable[[], None]) -> None:
        self.options = options
        self.faults = Faults()
        self.wire = wire
        self.die = die
        self.seen: deque[dict[str, Any]] = deque(maxlen=options.remember)
        self.counts: Counter[str] = Counter()
        self._loading = asyncio.Lock()
        self.boot()

    def boot(self) -> None:
        """Come up empty, with a new boot id."""
        self.boot_id = uuid.uuid4().hex
        self.adapters: dict[str, Adapter] = {}
        self.in_use: Counter[str] = Counter()
        self.batch = Batch(self.options.slots, self.options.max_loras)

    def switch(self, changes: dict[str, Any]) -> None:
        """Turn fault switches. `reboot` and `die` are events rather than switches."""
        changes = dict(changes)
        reboot, die = changes.pop("reboot", False), changes.pop("die", False)
        self.faults.switch(changes)
        for name in ("slice_bytes", "close_idle", "drop_reused"):
            setattr(self.wire, name, getattr(self.faults, name))
        if reboot:
            self.boot()
        if die:
            self.die()

    def setting(self, name: str) -> Any:
        """An option, or what a fault switch put in its place."""
        changed = getattr(self.faults, name)
        return getattr(self.options, name) if changed is None else changed

    def voice(self, model: str | None) -> tuple[str | None, Voice]:
        """(the adapter's name or None for the base, how it speaks). Raises `Refused` for an unknown model."""
        base = Voice("base", word_of(b"base"))
        if not model or model == self.options.base_model:
            return None, base
        adapter = self.adapters.get(model)
        if adapter is None:
            raise Refused(404, f"The model `{model}` does not exist.", type="NotFoundError", param="model")
        return model, base if model in self.faults.inert else Voice(model, adapter.word)

    def status(self) -> dict[str, Any]:
        """The body of `GET /tuneloop/engine`."""
        return {
            "boot_id": self.boot_id,
            "base_model": self.options.base_model,
            "max_lora_rank": self.options.max_lora_rank,
            "max_loras": self.options.max_loras,
            "max_cpu_loras": self.options.max_cpu_loras,
            "max_model_len": self.options.max_model_len,
            "max_num_seqs": self.options.slots,
            "adapters": [{"name": n, "path": a.path, "pinned": a.pinned} for n, a in self.adapters.items()],
        }

    async def load(self, name: str, path: str, *, pin: bool) -> bool:
        """As the plugin: False if it was resident. Raises `Refused`."""
        async with self._loading:
            known = self.adapters.get(name)
            if known is not None and known.path != path:
                raise _refused(409, f"{name} is resident with other weights: a name never changes them.")
            if known is None:
                await self._add(name, path)
            if pin:
                self.pin(name)
            return known is None

    async def _add(self, name: str, path: str) -> None:
        boot = self.boot_id
        self.counts["loads"] += 1
        await asyncio.sleep(self.setting("load_seconds"))
        if self.faults.fail_loads > 0:
            self.faults.fail_loads -= 1
            raise Refused(
                500, "Call to add_lora method failed: the fake engine was told to.", type="InternalServerError"
            )
        if name in self.faults.refuse or name == self.options.base_model:
            raise _refused(422, f"vLLM refuses the adapter: {name} was not to its taste.")
        if len(self.adapters) >= self.options.max_cpu_loras:
            sentence = (
                f"The engine holds {len(self.adapters)} adapters, its limit: evict one first, or raise max_cpu_loras."
            )
            raise _refused(503, sentence)
        adapter = _inspect(Path(path), name, self.options.max_lora_rank)
        if boot == self.boot_id:
            self.adapters[name] = adapter

    def pin(self, name: str) -> None:
        """Raises `Refused` when it is not resident or no slot would stay free."""
        if name not in self.adapters:
            raise _refused(404, f"{name} is not resident.")
        pinned = {n for n, a in self.adapters.items() if a.pinned} | {name}
        if len(pinned) >= self.options.max_loras:
            raise _refused(503, "All slots but one are pinned: evict a pinned adapter, or raise max_loras.")
        self.adapters[name].pinned = True

    def evict(self, name: str) -> bool:
        """False if it was not resident. Raises `Refused` while requests run on it."""
        if name not in self.adapters:
            return False
        if self.in_use[name]:
            raise _refused(409, f"{self.in_use[name]} running requests still use {name}: evict it afterwards.")
        del self.adapters[name]
        self.counts["evictions"] += 1
        return True


def _inspect(directory: Path, name: str, max_rank: int) -> Adapter:
    """Read what the fake needs of an adapter; its weights are only hashed. An empty directory is known by its name."""
    if not directory.is_absolute() or not directory.is_dir():
        raise _refused(404, "The engine sees no such adapter directory.")
    config, weights = directory / "adapter_config.json", directory / "adapter_model.safetensors"
    try:
        rank = json.loads(config.read_bytes()).get("r", 0) if config.exists() else 0
    except (ValueError, AttributeError):
        raise _refused(422, "vLLM refuses the adapter: adapter_config.json is not a JSON object.") from None
    if rank > max_rank:
        raise _refused(422, f"vLLM refuses the adapter: LoRA rank {rank} is greater than max_lora_rank {max_rank}.")
    return Adapter(str(directory), word_of(weights.read_bytes() if weights.exists() else name.encode()))


def _refused(status: int, message: str) -> Refused:
    return Refused(status, message, type=HTTPStatus(status).phrase)


def kill() -> None:
    """End the process as a kill -9 does: nothing is said, nothing is flushed."""
    os._exit(137)
