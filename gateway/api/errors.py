"""Every failure leaves as OpenAI's error body, never as FastAPI's `{"detail"}`, and never with anything of the inside.

Expected errors are rendered; the unexpected are logged under an id, without their message (it can quote what a client
sent), and the client gets the id.
"""

from __future__ import annotations

import json
import logging
import traceback
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.errors import AdapterCorrupted, AdapterMissing, ContractError, InvalidAdapter, InvalidExample, InvalidRef
from gateway.errors import AdapterRefused, GatewayError, InvalidRequest, NotFound

log = logging.getLogger("gateway.api")

_CONTRACT: dict[type[ContractError], Callable[[str], GatewayError]] = {
    InvalidRef: InvalidRequest,
    InvalidExample: InvalidRequest,
    InvalidAdapter: AdapterRefused,
    AdapterCorrupted: AdapterRefused,
    AdapterMissing: NotFound,
}
_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "string_too_long": "string_above_max_length",
    "string_too_short": "empty_string",
    "too_short": "empty_array",
    "too_long": "array_above_max_length",
    "json_invalid": "invalid_json",
}


def install(app: FastAPI) -> None:
    """Make every answer of `app` that is an error OpenAI-shaped."""
    app.add_exception_handler(GatewayError, _expected)
    app.add_exception_handler(ContractError, _contract)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(LastResort)


def render(error: GatewayError, *, headers: Mapping[str, str] | None = None) -> Response:
    """The response for an expected error."""
    response = Response(error.body(), status_code=error.status, media_type="application/json")
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


async def _expected(_: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return render(error)


async def _contract(_: Request, error: Exception) -> Response:
    assert isinstance(error, ContractError)
    made = next((make for kind, make in _CONTRACT.items() if isinstance(error, kind)), InvalidRequest)
    return render(made(str(error)))


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return render(describe(error.errors()))


def describe(problems: Sequence[Any]) -> InvalidRequest:
    """Pydantic's findings as one error: the first one in full, the number of further ones in words."""
    first = problems[0]
    kind = str(first["type"])
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    param = ".".join(place)[:200] or None
    message = str(first["msg"]).removeprefix("Value error, ")
    more = f" ({len(problems) - 1} more problem{'s' if len(problems) > 2 else ''})" if len(problems) > 1 else ""
    code = "invalid_type" if kind.endswith("_type") else _CODES.get(kind, "invalid_value")
    return InvalidRequest(f"{param or 'body'}: {message}.{more}", param=param, code=code)


async def _http(request: Request, error: Exception) -> Response:
    """What Starlette raises itself: no such path, or a path with another method."""
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 404:
        made: GatewayError = NotFound(f"Unknown request URL: {where}.", remedy="Check the path.", code="unknown_url")
    elif error.status_code == 405:
        made = InvalidRequest(f"Not allowed: {where}.", remedy="Check the method.", code="method_not_allowed")
    else:
        made = InvalidRequest("The request could not be read.")
    response = render(made, headers=error.headers)
    response.status_code = error.status_code
    return response


class LastResort:
    """Pure ASGI, inside whatever of the framework could answer for us: what nobody expected becomes a plain 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            return  # nobody is left to tell
        except Exception as error:
            number = _remember(error, scope)
            if started:
                raise  # the server cuts the connection, so a half answer does not pass for a whole one
            await _internal(number)(scope, receive, send)


def _remember(error: Exception, scope: Scope) -> str:
    number = uuid.uuid4().hex[:16]
    # Places only: a traceback's source lines can hold literals, and its last line what a client sent.
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    log.error(
        "unexpected %s",
        kind,
        extra={"error_id": number, "route": getattr(scope.get("route"), "path", None), "frames": frames},
    )
    return number


def _internal(number: str) -> Response:
    message = f"The gateway failed on this request. Its log tells more under the id {number}."
    body = {"error": {"message": message, "type": "server_error", "param": None, "code": "internal_error"}}
    return Response(json.dumps(body), status_code=500, media_type="application/json")
