"""Requests as they go over the wire, made before the clock starts, and the addresses they go to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

QUESTION = "How do I reset my password? I tried the link and it did not work."
SYSTEM = "You are a helpful assistant for ACME support, answer concisely."

Reads = Literal["fast", "slow", "never"]
"""How the client reads a stream: as it comes, a piece every `SLOW_SECONDS`, or not at all after its first piece."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: `host` and `port`, or the Unix socket `uds`."""

    host: str = "127.0.0.1"
    port: int = 0
    uds: str | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `http://host:port` or `unix:/path`. Raises ValueError."""
        if url.startswith("unix:"):
            return cls(uds=url.removeprefix("unix:"))
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url}: give http://host:port (TLS would be measured along) or unix:/path")
        return cls(parts.hostname, parts.port or 80)

    @property
    def url(self) -> str:
        return f"unix:{self.uds}" if self.uds else f"http://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request. `group` is the row of the table that it counts in. `held` seconds after it began, a client
    that never reads hangs up; that is what it does, and no failure."""

    wire: bytes
    group: str = "all"
    stream: bool = False
    reads: Reads = "fast"
    held: float = 0.0


def post(path: str, body: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole HTTP/1.1 POST with a JSON body."""
    raw = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "host: loadtests",
        "content-type: application/json",
        f"content-length: {len(raw)}",
    ]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + raw


def chat(
    model: str,
    *,
    key: str | None = None,
    stream: bool = False,
    wish: str | None = None,
    user: str | None = None,
    max_tokens: int = 64,
    group: str = "all",
    reads: Reads = "fast",
    held: float = 0.0,
) -> Ask:
    """A chat completion of ordinary size. `wish` is for the mock (`tokens=50 itl=0.2`); `user` is who stays on one side
    of an experiment."""
    question = QUESTION if wish is None else f"{QUESTION} (mock {wish})"
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0.2}
    if stream:
        body["stream"] = True
    if user is not None:
        body["user"] = user
    return Ask(post("/v1/chat/completions", body, key=key), group, stream, reads, held)
