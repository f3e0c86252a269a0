"""How a request is read: who is it, then its JSON, strictly. Runs before FastAPI looks at the body.

FastAPI alone reads any size, and takes NaN, duplicate keys and halves of surrogate pairs (FACTS §3); PostgreSQL refuses
some of these much later. Here they are a 400 at the door. Authentication comes first: strangers cannot make us parse.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.responses import Response

from adapters import strictjson
from gateway.api.auth import Caller, identify
from gateway.api.rooms import Rooms
from gateway.errors import InvalidRequest, PayloadTooLarge

MAX_JSON_BYTES = 1024 * 1024
"""Of one control-plane or feedback body: a correction of 100,000 characters fits, escaped."""

MAX_DEPTH = 32


def rooms_of(request: Request) -> Rooms:
    """The rooms that the app was built with."""
    rooms: Rooms = request.app.state.rooms
    return rooms


_BEARER = HTTPBearer(auto_error=False, description="The installation's admin key, or a tenant's key.")
"""For the interface's description only: `IdentifiedRoute` has looked at the key before."""


def caller_of(request: Request, _: Annotated[object, Depends(_BEARER)]) -> Caller:
    """Who was identified at the door."""
    caller: Caller = request.state.caller
    return caller


RoomsHere = Annotated[Rooms, Depends(rooms_of)]
CallerHere = Annotated[Caller, Depends(caller_of)]


class IdentifiedRoute(APIRoute):
    """A route for callers with a key."""

    reads_json = True

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def door(request: Request) -> Response:
            rooms = rooms_of(request)
            request.state.caller = identify(request.headers.raw, admin_key=rooms.admin_key, current=rooms.current)
            if self.reads_json and self.body_field is not None:
                request = _StrictRequest(request.scope, request.receive)
                await request.json()
            return await answer(request)

        return door


class _StrictRequest(Request):
    """A request whose JSON is read once, within limits, by our rules."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            self._body = await read_limited(self, MAX_JSON_BYTES)
        return self._body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            _must_say_json(self)
            self._json = parse(await self.body())
        return self._json


async def read_limited(request: Request, limit: int) -> bytes:
    """The whole body. Raises `PayloadTooLarge` as soon as it is known to exceed `limit` bytes."""
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > limit:
            raise PayloadTooLarge(f"The body is larger than {limit} bytes.", remedy="Send less.")
    return bytes(read)


def _must_say_json(request: Request) -> None:
    said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if said != "application/json":
        raise InvalidRequest("The body must be JSON.", remedy="Send `Content-Type: application/json`.")


def parse(raw: bytes) -> Any:
    """JSON with one meaning, that PostgreSQL can store. Raises `InvalidRequest`."""
    if not raw:
        raise InvalidRequest("The body is empty.", remedy="Send a JSON object.", code="invalid_json")
    try:
        value = strictjson.parse(raw)
    except ValueError as error:
        raise InvalidRequest(
            f"The body cannot be read: {error}.", remedy="Send valid JSON.", code="invalid_json"
        ) from error
    _check_storable(value, MAX_DEPTH)
    return value


def _check_storable(value: Any, depth: int) -> None:
    """Refuse NUL anywhere, which PostgreSQL's text cannot hold, and nesting that nobody needs."""
    if depth == 0:
        raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH}.", code="invalid_json")
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidRequest("The body holds a NUL character.", remedy="Remove it.", code="invalid_text")
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_storable(name, depth - 1)
            _check_storable(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_storable(item, depth - 1)
