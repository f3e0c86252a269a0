"""Takes messages from the outbox to their receiver: at least once, signed, again and again until it has them.

The form is that of Standard Webhooks (standardwebhooks.com): the headers `webhook-id` (the same at each attempt),
`webhook-timestamp` (seconds since 1970, of this attempt) and `webhook-signature`, `v1,` and the base64 of the
HMAC-SHA256 of `id.timestamp.body`. Any 2xx means taken. Messages may come in another order than they were written in.
It knows nothing of experiments, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx

from gateway.errors import Unavailable
from gateway.store import outbox
from gateway.store.database import Database

log = logging.getLogger("gateway.evaluation.webhook")

POLL_SECONDS = 5.0
"""Between two looks into the outbox: somebody else may have written into it, or died while sending."""
ATTEMPT_SECONDS = 10.0
CLAIM_SECONDS = 4 * ATTEMPT_SECONDS
"""After so long, a message whose sender said no more is another's."""
PAUSES = (1.0, 3600.0)
"""Seconds before the second attempt, and at most before any further one; each is twice the one before."""
KEPT_SECONDS = 3 * 24 * 3600.0
"""A message that nobody has taken for so long is given up, and the log says so."""


def key_of(secret: str) -> bytes:
    """The bytes that sign: what follows `whsec_` as base64, or else the text itself."""
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def signed(message_id: str, body: str, *, key: bytes, at: int) -> dict[str, str]:
    """The headers of one attempt at the time `at` (whole seconds since 1970)."""
    mark = hmac.new(key, f"{message_id}.{at}.{body}".encode(), hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,{base64.b64encode(mark).decode()}",
    }


def pause_after(attempts: int, *, jitter: Callable[[], float] = random.random) -> float:
    """Seconds until the next attempt after so many that failed (≥ 1), a quarter more or less."""
    usual: float = min(PAUSES[0] * 2.0 ** min(attempts - 1, 30), PAUSES[1])
    return usual * (0.75 + jitter() / 2)


class Webhook:
    """`url` is the receiver's. Redirects are not followed, and count as refusals: they would carry the message on."""

    def __init__(self, db: Database, url: str, secret: str) -> None:
        self._db = db
        self._url = url
        self._key = key_of(secret)
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Look into the outbox now."""
        self._news.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with httpx.AsyncClient(timeout=ATTEMPT_SECONDS, trust_env=False) as client:
            while True:
                self._news.clear()
                try:
                    while await self.deliver(client):
                        pass
                except Unavailable:
                    log.info("the outbox cannot be read now")
                except Exception as error:  # without its text: a database quotes the row. The worker must not end of it
                    log.error("a message was not delivered", extra={"error": type(error).__name__})
                try:  # not wait_for: on 3.11 it loses a cancellation that coincides with the event
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._news.wait()
                except TimeoutError:
                    pass

    async def deliver(self, client: httpx.AsyncClient) -> bool:
        """Try the message that is due; whether there was one. Raises `Unavailable`."""
        message = await outbox.claim(self._db, CLAIM_SECONDS)
        if message is None:
            return False
        refusal = await self._send(client, message)
        if refusal is None:
            await outbox.remove(self._db, message.id)
        elif (datetime.now(UTC) - message.created_at).total_seconds() > KEPT_SECONDS:
            log.error("webhook given up", extra={"id": message.id, "attempts": message.attempts, "reason": refusal})
            await outbox.remove(self._db, message.id)
        else:
            log.warning("webhook not taken", extra={"id": message.id, "attempts": message.attempts, "reason": refusal})
            await outbox.postpone(self._db, message.id, pause_after(message.attempts))
        return True

    async def _send(self, client: httpx.AsyncClient, message: outbox.Message) -> str | None:
        """Why the receiver did not take it; None if it did. The address is not told: it may hold a password."""
        headers = signed(message.id, message.body, key=self._key, at=int(time.time()))
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):  # of the whole: httpx's own is one of each step
                async with client.stream("POST", self._url, content=message.body.encode(), headers=headers) as reply:
                    return None if reply.is_success else f"status {reply.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as error:
            return type(error).__name__
