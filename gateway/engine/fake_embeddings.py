"""The fake engine's `/v1/embeddings`: vectors that depend on the text and on the weights, in vLLM 0.32's shape."""

from __future__ import annotations

import base64
import hashlib
import struct
import time
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.engine.fake_answers import Voice, count_tokens
from gateway.engine.fake_engine import FakeEngine, Refused

DIMENSIONS = 16


@dataclass(frozen=True, slots=True)
class Embedding:
    """One request, understood."""

    id: str
    model: str
    adapter: str | None
    voice: Voice
    inputs: tuple[str, ...]
    dimensions: int
    packed: bool

    def body(self) -> bytes:
        """The answer."""
        vectors = [vector(self.voice, text, self.dimensions) for text in self.inputs]
        data = [
            {"index": index, "object": "embedding", "embedding": _packed(one) if self.packed else one}
            for index, one in enumerate(vectors)
        ]
        tokens = sum(map(count_tokens, self.inputs))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
        told = {"id": self.id, "object": "list", "created": int(time.time()), "model": self.model, "data": data}
        return msgspec.json.encode(told | {"usage": usage | {"prompt_tokens_details": None}})


def read_embedding(engine: FakeEngine, body: Any, *, request_id: str | None) -> Embedding:
    """Check a request as vLLM does. Raises `Refused`."""
    given = body.get("input") if isinstance(body, dict) else None
    if not isinstance(given, str | list):
        raise Refused(400, "1 validation error:\n  Field required", type="Bad Request", param="body.input")
    if isinstance(given, str) or (given and isinstance(given[0], int)):
        given = [given]
    adapter, voice = engine.voice(body.get("model"))
    return Embedding(
        id=f"embd-{request_id or uuid.uuid4().hex}",
        model=adapter or engine.options.base_model,
        adapter=adapter,
        voice=voice,
        inputs=tuple(one if isinstance(one, str) else " ".join(map(str, one)) for one in given),
        dimensions=body.get("dimensions") or DIMENSIONS,
        packed=body.get("encoding_format") == "base64",
    )


def vector(voice: Voice, text: str, dimensions: int) -> list[float]:
    """`dimensions` numbers in [-1, 1]."""
    digest = hashlib.shake_128(f"{voice.word}:{text}".encode("utf-8", "replace")).digest(dimensions)
    return [round(byte / 127.5 - 1, 4) for byte in digest]


def _packed(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
