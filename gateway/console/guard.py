"""What holds for every request to the console, whatever page it is for: headers, sizes, where it came from, and errors.

Pure ASGI around the application, and its exception handlers. It knows no page and no session.
"""

from __future__ import annotations

import logging
import traceback
import uuid
from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.errors import ContractError
from gateway.console.session import SignedOut
from gateway.console.templating import page_of
from gateway.errors import Forbidden, GatewayError, InvalidRequest, PayloadTooLarge

log = logging.getLogger("gateway.console")

MAX_FORM_BYTES = 1024 * 1024
"""Of one form: a correction of 100,000 characters fits, escaped."""

SAFE = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Nothing to other hosts. `no-referrer` would make browsers say `Origin: null` of our own forms, too.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """Pure ASGI: adds the headers, bounds the body, refuses what another site made the browser send."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        read, started = 0, False

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_FORM_BYTES:
                raise PayloadTooLarge(f"A form may have {MAX_FORM_BYTES} bytes.", remedy="Send less.")
            return message

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message["headers"])
                headers.update(_HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        request = Request(scope)
        try:
            if scope["method"] not in SAFE:
                check_origin(request.headers)
            await self.app(scope, bounded, guarded)
        except ClientDisconnect:
            return  # nobody is left to tell
        except GatewayError as error:
            await failed(request, error)(scope, receive, guarded)
        except Exception as error:
            if started:
                raise  # the server cuts the connection, so a half page does not pass for a whole one
            await failed(request, _Unexpected(_remember(error)))(scope, receive, guarded)


def check_origin(headers: Headers) -> None:
    """Raises `Forbidden` unless the browser says that a page of ours sent this. `Origin` is compared by host and port:
    behind a proxy that ends TLS, its scheme is not the one that we see."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    same = origin is not None and origin != "null" and urlsplit(origin).netloc == headers.get("host")
    if (site is not None and site != "same-origin") or (origin is not None and not same) or not (site or origin):
        raise Forbidden("This form was not sent by a page of this console.", remedy="Go back, reload, and try again.")


def install(app: FastAPI) -> None:
    """Make every error of `app` a page."""
    app.add_exception_handler(GatewayError, _expected)
    app.add_exception_handler(ContractError, _contract)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def failed(request: Request, error: GatewayError) -> Response:
    """The page of an error; for htmx, a notice on the page that is there already."""
    if isinstance(error, SignedOut):
        return _to_sign_in(request)
    if request.headers.get("hx-request") == "true":
        said = page_of(request, "notice.jinja", status=error.status, message=error.message)
        said.headers.update({"hx-retarget": "#notice", "hx-reswap": "innerHTML"})
        return said
    title = _title(error.status)
    said = page_of(request, "failed.jinja", status=error.status, title=title, message=error.message)
    if error.retry_after is not None:
        said.headers["retry-after"] = str(error.retry_after)
    return said


class _Unexpected(GatewayError):
    def __init__(self, number: str) -> None:
        super().__init__(f"The gateway failed on this page. Its log tells more under the id {number}.")


def _to_sign_in(request: Request) -> Response:
    if request.headers.get("hx-request") == "true":
        return Response(status_code=204, headers={"hx-redirect": "/console/sign-in"})
    url = request.url
    # A link to a page, from a webhook's message perhaps, leads there after all.
    asked = f"{url.path}?{url.query}" if url.query else url.path
    to = f"?to={quote(asked, safe='/')}" if request.method == "GET" and url.path != "/console/" else ""
    return RedirectResponse(f"/console/sign-in{to}", status_code=303)


async def _expected(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    return failed(request, error)


async def _contract(request: Request, error: Exception) -> Response:
    return failed(request, InvalidRequest(str(error)))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    return failed(request, InvalidRequest(f"{place or 'The form'}: {first['msg']}."))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, message = error.status_code, "There is no such page."
    if status != 404:  # no way to ask for this page, or a form that cannot be read
        message = "This page cannot be asked like that."
    return page_of(request, "failed.jinja", status=status, title=_title(status), message=message)


def _title(status: int) -> str:
    return {403: "Not allowed", 404: "Not found", 409: "Not now", 413: "Too large", 503: "Not ready"}.get(
        status, "This did not work" if status < 500 else "Something failed"
    )


def _remember(error: Exception) -> str:
    """Logs places only: a traceback's source lines can hold literals, and its last line what a client sent."""
    number = uuid.uuid4().hex[:16]
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    log.error("unexpected %s", type(error).__qualname__, extra={"error_id": number, "frames": frames})
    return number
