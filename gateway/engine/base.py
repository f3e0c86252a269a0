"""What the gateway needs of an engine, as a Protocol, and the wire contract of our endpoint plugin.

The rest of the gateway knows engines only through this page. vLLM's own spellings (`lora_name`, `max_loras`) stay here.

The plugin's routes, the same on `plugin.py` (inside vLLM) and `fake.py`; all JSON, errors in vLLM's shape
`{"error": {"message", "type", "param", "code": int}}`:

    GET  /tuneloop/engine            → {"boot_id", "base_model", "max_lora_rank", "max_loras", "max_cpu_loras",
                                        "max_model_len", "max_num_seqs", "adapters": [{"name", "path", "pinned"}]}
    POST /tuneloop/adapters          {"name", "path", "pin": false} → 200 {"name", "loaded": true | false (was there)}
                                     with "probe": prompt it also generates one token on it, in the same turn, and tells
                                     "probe": {"text", "logprobs": {token: nats, null where not finite}} if it could
                                     409 resident under another path · 404 no such directory · 422 vLLM refuses it
                                     503 `max_cpu_loras` are resident: evict one first
    POST /tuneloop/adapters/pin      {"name"} → 200 {"name", "pinned": true} · 404 · 503 one slot must stay free
    POST /tuneloop/adapters/evict    {"name"} → 200 {"name", "evicted": true | false (was not resident)}
                                     409 a running request still uses it: nothing changed

`boot_id` is new with each start of the engine process: a changed one means that every adapter is gone.
A resident adapter is addressed by putting its name (`acme/support@7`) into the request's `model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """`plugin` is false on a vLLM without our plugin: it serves the base model only, and the limits are then zero.

    `slots`: distinct adapters in one batch; `capacity`: adapters resident at once; `concurrency`: requests that the
    engine works on at once (it queues the rest, first come, first served). 0 is "not known".
    """

    boot_id: str
    base_model: str
    plugin: bool
    max_rank: int = 0
    slots: int = 0
    capacity: int = 0
    max_model_len: int = 0
    resident: frozenset[str] = frozenset()
    concurrency: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """A generated token, and the likeliest tokens at its position: text → log-probability (nats)."""

    text: str
    logprobs: dict[str, float]


Sink = Callable[[bytes, bytes | None], bool]
"""Takes a piece of a body, and the whole HTTP chunk that it came as, where it came as one; says whether to go on."""


class Way(NamedTuple):
    """Where pieces of a stream may go without being looked at: those that came as one chunk of HTTP/1.1 and end with
    `tail`, as that chunk, to the socket `target` while `waiting` says 0 (bytes of ours that it has not taken yet).
    `kept` collects them, as long as they are fewer than `keep` bytes; 0: none are kept.
    """

    target: int
    waiting: Callable[[], int]
    tail: bytes
    kept: list[bytes]
    keep: int


class Shortcut(Protocol):
    """Who lets the usual pieces of a stream pass by (`lane.py`)."""

    def way(self) -> Way | None:
        """Where they may go from now on; None: nowhere now."""
        ...

    def passed(self, pieces: int, last: bytes, keep: int) -> None:
        """So many went by, `last` of them last; so much of `keep` is left."""
        ...

    def spilled(self, rest: bytes) -> bool:
        """The socket did not take the `rest` of a chunk. As a sink says: whether to go on."""
        ...


class Answer(Protocol):
    """A response whose head has arrived. Close it in `finally`: an unfinished one aborts the engine's work.

    `open_ended`, once it is read to its end: nothing but the connection's end said so, and an engine that dies ends its
    connections too. Only what was said can tell whether it is whole.
    """

    status: int
    headers: Headers
    open_ended: bool

    async def read(self) -> bytes:
        """The whole body. Raises `UpstreamBroken` when it was cut, `EngineTimeout` when it stalls."""
        ...

    async def chunk(self) -> bytes:
        """The next piece of the body as it came; b"" at its end. Raises as `read` does."""
        ...

    async def pour(self, sink: Sink, shortcut: Shortcut | None = None) -> bool:
        """Give every piece to `sink` as it comes. True at the body's end; False as soon as the sink says so. Pieces may
        take the `shortcut` instead.
        """
        ...

    def close(self) -> None:
        """Return the connection to the pool if the body was read to its end, else drop it (the engine then aborts)."""
        ...


class Engine(Protocol):
    """One engine. All methods raise `gateway.errors` types only."""

    async def send(self, path: bytes, headers: Headers | bytes, body: bytes, *, method: bytes = b"POST") -> Answer:
        """Send one request and return when the response's head is here. `headers` as bytes are whole lines, each with
        its end, whose writer vouches for them.

        A stale pooled connection is retried once, since no byte of a response was seen. Raises `Unavailable` when the
        engine cannot be reached, `EngineTimeout` when no head comes in time, `EngineFailed` when the head is nonsense.
        """
        ...

    async def status(self) -> EngineStatus:
        """Who is there, and what is resident. Raises `Unavailable` when nobody answers."""
        ...

    async def load(self, name: str, path: Path) -> Probe:
        """Make an adapter resident and generate one token on it, on the prompt that `probe` uses.

        Raises `AdapterRefused` with the engine's reason, and then has not loaded it. Log-probabilities that are not
        finite come back as NaN: the adapter is resident, and it is the caller's to judge.
        """
        ...

    async def evict(self, name: str) -> bool:
        """Free an adapter's memory; false if it was not resident."""
        ...

    async def probe(self, model: str, *, seconds: float = 30) -> Probe:
        """Generate one token on a fixed prompt: readiness, warm-up and the behavioural load test in one."""
        ...

    async def render(self, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool) -> list[int]:
        """The token ids of a chat as the base model's template renders it. Raises `NotFound` where the engine does not
        tell, and `InvalidRequest` with its reason for a chat that the template refuses.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
