"""The gateway's data plane as the gate and the replay use it: one request, patiently. It knows no rows and no figures.

A busy gateway (429, 503) is asked again when it says, a broken answer (5xx, a lost connection) a few times; what stays
unanswered is an `Unanswered` with its reason, for the caller to count.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Self

import httpx

from trainer.errors import GatewayFailed

_ANSWER_SECONDS = 300.0
_PATIENCE_SECONDS = 300.0
"""How long a busy gateway is asked again, for one request."""
_NEWS_SECONDS = 15.0
"""How long a worker may not know a new key or version yet."""
_NEWS_PAUSE = 0.2
_LONGEST_PAUSE = 30.0
_TRIES = 4
_BUSY = frozenset({429, 503})
_UNKNOWN = frozenset({401, 403, 404})


class Unanswered(Exception):
    """Why one request has no answer; never a key or an address."""


class Asker:
    """Asks at most `at_once` things at a time, with a key that was lent."""

    def __init__(
        self, url: str, key: str, *, at_once: int, news_seconds: float = _NEWS_SECONDS, tries: int = _TRIES
    ) -> None:
        headers = {"authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=at_once)
        self._http = httpx.AsyncClient(base_url=f"{url}/v1", headers=headers, timeout=_ANSWER_SECONDS, limits=limits)
        self._turn = asyncio.Semaphore(at_once)
        self._news_seconds, self._tries = news_seconds, tries

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer's JSON. Raises `Unanswered`, and `GatewayFailed` if no request would be answered."""
        async with self._turn:
            began, broken = time.monotonic(), 0
            while True:
                waited = time.monotonic() - began
                try:
                    reply = await self._http.post(path, json=body)
                except httpx.HTTPError as error:
                    broken += 1
                    if broken >= self._tries:
                        raise Unanswered(f"the connection broke ({type(error).__name__})") from None
                    await asyncio.sleep(2.0**broken / 2)
                    continue
                if reply.is_success:
                    return _read(reply)
                broken += reply.status_code >= 500 and reply.status_code not in _BUSY
                busy = reply.status_code in _BUSY and waited < _PATIENCE_SECONDS
                unknown = reply.status_code in _UNKNOWN and waited < self._news_seconds
                if reply.status_code in _UNKNOWN and not unknown:
                    remedy = "the lent key or the version is unknown to it; run the same command again"
                    raise GatewayFailed(f"the gateway refuses: {_message(reply)}", remedy)
                if not (busy or unknown or (reply.status_code >= 500 and broken < self._tries)):
                    raise Unanswered(_message(reply))
                await asyncio.sleep(_NEWS_PAUSE if unknown else _pause(reply))


def _read(reply: httpx.Response) -> dict[str, Any]:
    try:
        found = reply.json()
    except ValueError:
        raise Unanswered("the answer is not JSON") from None
    if not isinstance(found, dict):
        raise Unanswered("the answer is no object")
    return found


def _pause(reply: httpx.Response) -> float:
    try:
        return min(max(float(reply.headers.get("retry-after", "1")), 0.1), _LONGEST_PAUSE)
    except ValueError:  # a date is allowed, too
        return 1.0


def _message(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])[:300].rstrip(".")
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status_code}"
