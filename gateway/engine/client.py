"""The engine behind a URL: `base.Engine` on our HTTP client, for a vLLM with our plugin, without it, and for the fake.

vLLM's shapes (its error body, its completions' logprobs, the plugin's JSON) are read here and nowhere above.
"""

from __future__ import annotations

import json
import math
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from gateway.domain import BASE
from gateway.engine.base import Answer, EngineStatus, Headers, Probe
from gateway.engine.refusals import NOT_FINITE, engine_error, engine_sentence, lacks_route
from gateway.engine.upstream import Upstream
from gateway.errors import AdapterRefused, Conflict, EngineFailed, NotFound
from gateway.settings import TimeoutSettings

PROBE_PROMPT = "The capital of France is"
STATUS_SECONDS = 10.0
"""An engine that loads an adapter answers nobody meanwhile; a load takes well under a second from a local disk."""

LOAD_SECONDS = 60.0
"""The longest that a load and its canary may take; afterwards the engine is asked what became of it."""

_JSON = ((b"content-type", b"application/json"),)
_NO_PLUGIN_BOOT = "without-plugin"
_GENERATED = b"vllm:generation_tokens_total{"
_NONSENSE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading JSON of another shape than expected raises: an infinite rank, and a hundred thousand brackets, too."""
_FLOOR = -9999.0
"""What vLLM writes for a log-probability of minus infinity."""


class HttpEngine:
    """One engine at `http://host:port` or `unix:/path`. `base_model` is what the engine calls its base model.

    `probe` and nothing else reads `base` as the base model; `send` passes bytes on as they are.
    """

    def __init__(self, url: str, *, base_model: str, timeouts: TimeoutSettings, lane: bool = True) -> None:
        self._upstream = Upstream(url, timeouts=timeouts, lane=lane)
        self._base_model = base_model

    def send(
        self, path: bytes, headers: Headers | bytes, body: bytes, *, method: bytes = b"POST"
    ) -> Coroutine[Any, Any, Answer]:
        """See `base.Engine.send`. Not a coroutine of its own: one frame less on the path of every request."""
        return self._upstream.send(path, headers, body, method=method)

    async def status(self) -> EngineStatus:
        """Who is there. Without our plugin the boot id is a constant: such an engine has nothing to lose."""
        status, reply = await self._ask(b"GET", b"/tuneloop/engine", seconds=STATUS_SECONDS)
        if status == 404:
            return await self._status_without_plugin()
        if status != 200:
            raise engine_error(status, reply)
        try:
            told = json.loads(reply)
            if "boot_id" not in told:  # a server that answers every path with something of its own
                return await self._status_without_plugin()
            return EngineStatus(
                boot_id=str(told["boot_id"]),
                base_model=str(told["base_model"]),
                plugin=True,
                max_rank=int(told["max_lora_rank"]),
                slots=int(told["max_loras"]),
                capacity=int(told["max_cpu_loras"]),
                max_model_len=int(told["max_model_len"]),
                resident=frozenset(str(adapter["name"]) for adapter in told["adapters"]),
                concurrency=int(told.get("max_num_seqs", 0)),
            )
        except _NONSENSE:
            raise EngineFailed("The engine's status makes no sense to the gateway.") from None

    async def _status_without_plugin(self) -> EngineStatus:
        status, reply = await self._ask(b"GET", b"/v1/models", seconds=STATUS_SECONDS)
        if status != 200:
            raise engine_error(status, reply)
        try:
            cards = [card for card in json.loads(reply)["data"] if card.get("parent") is None]
            names = [str(card["id"]) for card in cards]
            chosen = names.index(self._base_model) if self._base_model in names else 0
            length = cards[chosen].get("max_model_len") or 0
            return EngineStatus(_NO_PLUGIN_BOOT, names[chosen], plugin=False, max_model_len=int(length))
        except _NONSENSE:
            raise EngineFailed("The engine's list of models makes no sense to the gateway.") from None

    async def load(self, name: str, path: Path) -> Probe:
        """Make an adapter resident, and generate one token on it.

        Raises `AdapterRefused` (the engine will not take it, ever) or `Unavailable` (it is full, or away).
        """
        body = {"name": name, "path": str(path), "probe": PROBE_PROMPT}
        status, reply = await self._ask(b"POST", b"/tuneloop/adapters", body, seconds=LOAD_SECONDS)
        if status in (404, 409, 422):
            raise AdapterRefused(f"The engine refuses {name}: {engine_sentence(reply)}")
        if status != 200:
            raise engine_error(status, reply)
        if (probe := _read_trial(reply)) is not None:
            return probe
        try:
            return await self.probe(name)
        except AdapterRefused:
            return Probe("", {"": math.nan})

    async def evict(self, name: str) -> bool:
        """Free an adapter's memory; False if it was not resident. Raises `Conflict` while the engine runs on it."""
        status, reply = await self._ask(b"POST", b"/tuneloop/adapters/evict", {"name": name})
        if status == 200:
            return _flag(reply, "evicted")
        if status == 409:
            raise Conflict(engine_sentence(reply), code="adapter_in_use")
        raise engine_error(status, reply)

    async def probe(self, model: str, *, seconds: float = 30) -> Probe:
        """Generate one token. Raises `AdapterRefused` when an adapter's log-probabilities are not finite numbers.

        The base model may give none: an engine that somebody else runs need not know them, and they only matter for
        judging adapters.
        """
        name = self._base_model if model == BASE else model
        body = {"model": name, "prompt": PROBE_PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 5}
        status, reply = await self._ask(b"POST", b"/v1/completions", body, seconds=seconds)
        broken = status in (400, 500) and NOT_FINITE.search(engine_sentence(reply))
        if status == 200:
            probe = _read_probe(reply, needed=name != self._base_model)
            if probe is not None:
                return probe
        elif not broken:
            raise engine_error(status, reply)
        if name == self._base_model:
            raise EngineFailed("The base model's log-probabilities are not finite numbers.")
        raise AdapterRefused(
            f"{model} loads, but its log-probabilities are not finite numbers.",
            remedy="Its weights overflow: retrain with a lower learning rate or in float32.",
        )

    async def generated(self) -> float:
        """How many tokens the engine has generated since its start; 0 where it keeps no statistics."""
        status, reply = await self._ask(b"GET", b"/metrics", seconds=STATUS_SECONDS)
        if status != 200:
            raise engine_error(status, reply)
        counts = (line.rpartition(b" ")[2] for line in reply.splitlines() if line.startswith(_GENERATED))
        try:
            return sum(map(float, counts))
        except ValueError:
            raise EngineFailed("The engine's metrics make no sense to the gateway.") from None

    async def render(self, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool) -> list[int]:
        """The token ids that the engine makes of a chat, by its own template and tokenizer."""
        body = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        status, reply = await self._ask(b"POST", b"/tokenize", body)
        if lacks_route(status, reply):
            raise NotFound("The engine does not tell how it renders a chat.", code="endpoint_not_served")
        if status != 200:
            raise engine_error(status, reply)
        try:
            return [int(token) for token in json.loads(reply)["tokens"]]
        except _NONSENSE:
            raise EngineFailed("The engine's token ids make no sense to the gateway.") from None

    async def aclose(self) -> None:
        """Close every connection."""
        await self._upstream.aclose()

    async def _ask(
        self, method: bytes, path: bytes, body: dict[str, Any] | None = None, *, seconds: float | None = None
    ) -> tuple[int, bytes]:
        data = b"" if body is None else json.dumps(body).encode()
        answer = await self._upstream.send(path, _JSON, data, method=method, seconds=seconds)
        try:
            return answer.status, await answer.read()
        finally:
            answer.close()


def _flag(body: bytes, name: str) -> bool:
    try:
        return bool(json.loads(body)[name])
    except _NONSENSE:
        raise EngineFailed("The engine's answer makes no sense to the gateway.") from None


def _read_trial(body: bytes) -> Probe | None:
    """What a load's own canary said; None when it tells of none."""
    try:
        trial = json.loads(body).get("probe")
        if trial is None:
            return None
        ranked = {str(token): math.nan if value is None else float(value) for token, value in trial["logprobs"].items()}
        return Probe(str(trial["text"]), ranked)
    except _NONSENSE:
        raise EngineFailed("The engine's answer makes no sense to the gateway.") from None


def _read_probe(body: bytes, *, needed: bool) -> Probe | None:
    """Read a completion of one token; None when a log-probability is not finite, or the chosen token's is the floor.

    `needed`: one without log-probabilities is a failure, too.
    """
    try:
        choice = json.loads(body)["choices"][0]
        logprobs = choice.get("logprobs")
        if logprobs is None and not needed:
            return Probe(str(choice.get("text", "")), {})
        chosen, ranked = logprobs["token_logprobs"][0], logprobs["top_logprobs"][0] or {}
        text, values = str(choice["text"]), (chosen, *ranked.values())
        finite = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    except _NONSENSE:
        raise EngineFailed("The engine's completion has no log-probabilities.") from None
    if not finite:
        return None
    return Probe(text, {str(token): float(value) for token, value in ranked.items()}) if chosen > _FLOOR else None
