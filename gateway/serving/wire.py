"""ASGI, as little of it as the door needs: the types, a body within bounds, a refusal. It knows nothing of models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from gateway.errors import GatewayError, InvalidRequest, PayloadTooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

DISCARDED = 4
"""A body up to so many times the limit is read to its end before it is refused: a client that is cut off in the middle
of sending sees a broken connection instead of the reason."""


class ClientGone(Exception):
    """The client left: there is nobody to answer."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """The whole body. Raises `PayloadTooLarge`, `InvalidRequest` for a compressed one, `ClientGone`."""
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise InvalidRequest("Compressed bodies are not accepted.", code="unsupported_content_encoding")
    told = headers.get(b"content-length")
    if told is not None and len(told) > 7 and int(told) > limit * DISCARDED:
        raise _too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body") or message["type"] != "http.request":
        body = await _rest(receive, message, limit)
    if len(body) > limit:
        raise _too_large(limit)
    return body


async def _rest(receive: Receive, message: MutableMapping[str, Any], limit: int) -> bytes:
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size <= limit:
            parts.append(part)
        if size > limit * DISCARDED:
            raise _too_large(limit)
        if not message.get("more_body"):
            break
        message = await receive()
    if size > limit:
        raise _too_large(limit)
    return b"".join(parts)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body of your request is larger than {limit} bytes.", remedy="Send a smaller one.")


async def refuse(send: Send, error: GatewayError, headers: Sequence[Header] = (), *, close: bool = False) -> None:
    """Answer with an error. `close`: this connection takes no further request."""
    extra = [*headers, (b"connection", b"close")] if close else headers
    await send({"type": "http.response.start", "status": error.status, "headers": [*error.headers(), *extra]})
    await send({"type": "http.response.body", "body": error.body()})


async def reply(send: Send, body: bytes, headers: Sequence[Header]) -> None:
    """Answer 200 with a whole JSON body."""
    own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": own})
    await send({"type": "http.response.body", "body": body})
