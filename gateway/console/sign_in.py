"""The way in and out: a key once, then a cookie for twelve hours. And the first page, which is another one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from gateway.api.rooms import Rooms
from gateway.console import session
from gateway.console.here import COOKIE, Fields, SignedIn
from gateway.console.templating import page_of
from gateway.errors import GatewayError, InvalidRequest

router = APIRouter()

FIRST = "experiments"

_OURS = re.compile(r"/console/(?!/)[!-\[\]-~]*\Z")
"""A page of the console, as it stands in a URL; nothing that leads anywhere else."""


@router.get("/sign-in")
async def ask(request: Request, to: str = "") -> Response:
    return page_of(request, "sign_in.jinja", title="Sign in", message=None, to=to)


@router.post("/sign-in")
async def sign_in(request: Request, fields: Fields) -> Response:
    """That the form is ours, the guard has seen: there is no session yet whose token it could carry."""
    rooms: Rooms = request.app.state.rooms
    try:
        if not (key := fields.get("key", "").strip()):
            raise InvalidRequest("Paste a key.")
        cookie = session.sign_in(key, admin_key=rooms.admin_key, current=rooms.current, now=datetime.now(UTC))
    except GatewayError as error:
        told = {"message": error.message, "to": fields.get("to", "")}
        return page_of(request, "sign_in.jinja", status=error.status, title="Sign in", **told)
    to = fields.get("to", "")
    reply = RedirectResponse(to if _OURS.match(to) else "/console/", status_code=303)
    seconds = int(session.LIFETIME.total_seconds())
    secure = _by_https(request)
    # Lax and not Strict: whoever follows a link from a chat is signed in there, too. The cookie goes with no form of
    # another site, and the guard looks at where each form comes from besides.
    reply.set_cookie(COOKIE, cookie, max_age=seconds, path="/console", secure=secure, httponly=True, samesite="lax")
    return reply


@router.post("/sign-out")
async def sign_out(here: SignedIn) -> Response:
    reply = RedirectResponse("/console/sign-in", status_code=303)
    reply.delete_cookie(COOKIE, path="/console")
    return reply


@router.get("/")
async def first(here: SignedIn) -> Response:
    """To the tenant's experiments; the operator begins with the first tenant."""
    if here.caller.tenant is not None:
        return RedirectResponse(here.path(FIRST, tenant=here.caller.tenant.name), status_code=303)
    if here.tenants:
        return RedirectResponse(here.path(FIRST, tenant=here.tenants[0]), status_code=303)
    return here.page("nobody.jinja", title="No tenants yet")


def _by_https(request: Request) -> bool:
    """Whether the browser came by https. It says so itself; behind a proxy our own connection does not tell."""
    origin, proxied = request.headers.get("origin", ""), request.headers.get("x-forwarded-proto")
    return "https" in (urlsplit(origin).scheme, proxied, request.url.scheme)
