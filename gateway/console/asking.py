"""Asking the data plane from the console: through its own door, with a key that the console makes for itself.

The key is the tenant's, with the scopes `inference` and `evaluate`: its requests may name every version, are no part
of any experiment, and count against the tenant's limits. It ends within the hour and can be revoked before, like any
other; its text is in this worker's memory only, never in a browser. What is asked is kept as the words of `unit`,
where the tenant keeps content: erasing that user erases it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.console.waiting import until
from gateway.control.keys import Keys
from gateway.domain import Scope
from gateway.errors import EngineFailed, GatewayError, InvalidRequest, Unavailable
from gateway.identity import canonical_inference_id, hash_key
from gateway.serving.inside import Reply, Serves, asked
from gateway.snapshot import Current

CHAT = "/v1/chat/completions"
SCOPES = frozenset((Scope.INFERENCE, Scope.EVALUATE))
LIFETIME = timedelta(hours=1)
MARGIN = timedelta(minutes=2)
"""A key that ends sooner is not used for another request."""


@dataclass(frozen=True, slots=True)
class _Key:
    text: str
    digest: bytes
    ends: datetime


class Asking:
    """`ask` for an answer as it comes, `whole` for one in one piece. A key for each tenant and each who asks."""

    def __init__(self, door: Serves, keys: Keys, current: Current) -> None:
        self._door, self._keys, self._current = door, keys, current
        self._made: dict[tuple[str, str], _Key] = {}
        self._making = asyncio.Lock()

    @asynccontextmanager
    async def ask(self, tenant: str, body: Mapping[str, Any], *, actor: str, unit: str) -> AsyncIterator[Reply]:
        """A chat completion, streamed if `body` says so. Raises `Unavailable`; what the door refuses is the reply's."""
        key = await self._key(tenant, actor)
        headers = {
            b"authorization": f"Bearer {key}".encode(),
            b"content-type": b"application/json",
            b"x-unit": unit.encode(),
        }
        async with asked(self._door, CHAT, headers, json.dumps(body).encode()) as reply:
            yield reply

    async def whole(self, tenant: str, body: Mapping[str, Any], *, actor: str, unit: str) -> str:
        """Have it answered, and recorded; the answer's bare id. Raises what was wrong."""
        async with self.ask(tenant, body, actor=actor, unit=unit) as reply:
            told = await reply.read()
        if reply.status != 200:
            raise problem(reply.status, told)
        bare = canonical_inference_id(reply.headers["x-inference-id"])
        if bare is None:
            raise EngineFailed("The answer has no id.")
        return bare

    async def _key(self, tenant: str, actor: str) -> str:
        async with self._making:
            key = self._made.get((tenant, actor))
            if key is None or not self._good(key):
                key = self._made[tenant, actor] = await self._make(tenant, actor)
            return key.text

    def _good(self, key: _Key) -> bool:
        return key.ends - MARGIN > datetime.now(UTC) and key.digest in self._current.snapshot.keys

    async def _make(self, tenant: str, actor: str) -> _Key:
        now = datetime.now(UTC)
        self._made = {whose: key for whose, key in self._made.items() if key.ends > now}
        made = await self._keys.create(tenant, SCOPES, expires_at=now + LIFETIME, actor=actor)
        key = _Key(made.key, hash_key(made.key), now + LIFETIME)
        if not await until(lambda: key.digest in self._current.snapshot.keys):
            raise Unavailable("The key for the playground is not known here yet.", remedy="Try again shortly.")
        return key


def problem(status: int, told: bytes) -> GatewayError:
    """What the door's error body says, as an error of ours."""
    try:
        message = str(json.loads(told)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        message = "The gateway could not answer."
    return InvalidRequest(message) if status < 500 else EngineFailed(message)
