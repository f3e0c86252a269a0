"""Who looks at which tenant: what every page's function is given, and how it answers. It knows no page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import HTMLResponse, RedirectResponse, Response

from adapters.errors import ContractError
from adapters.manifest import Manifest
from gateway.api.auth import Caller, own_tenant, require_operator
from gateway.api.rooms import Rooms
from gateway.console import session
from gateway.console.guard import SAFE
from gateway.console.templating import page_of
from gateway.control.names import unknown
from gateway.domain import Adapter
from gateway.errors import Forbidden, GatewayError, InvalidRequest

COOKIE = "tuneloop_console"
MOST_MANIFESTS = 1000
"""In memory, some kilobytes each."""

_MANIFESTS: dict[str, Manifest] = {}
"""By the digest of what they describe: the same for every tenant that has those very bytes."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the navigation: `path` below the tenant's own, or below /console for the operator's pages."""

    path: str
    title: str
    operator: bool = False


def navigation(places: Iterable[Place | None]) -> tuple[Place, ...]:
    """Those that have a line."""
    return tuple(place for place in places if place is not None)


@dataclass(frozen=True, slots=True)
class Desk:
    """One request of somebody signed in. `tenant` is "" on the operator's pages, `token` what forms must carry."""

    request: Request
    rooms: Rooms
    caller: Caller
    token: str
    tenant: str

    @property
    def actor(self) -> str:
        """Whom the audit log names."""
        return self.caller.actor

    @property
    def operator(self) -> bool:
        """Whether this is the operator, who sees every tenant."""
        return self.caller.key is None

    @property
    def tenants(self) -> list[str]:
        """Those that this caller may look at, by name."""
        return sorted(name for name in self.rooms.current.snapshot.tenants if self.caller.administers(name))

    async def manifest(self, adapter: Adapter) -> Manifest | None:
        """What a version is made of; None where the store does not give it. It never changes, so it is read once."""
        if adapter.digest not in _MANIFESTS:
            if len(_MANIFESTS) >= MOST_MANIFESTS:
                _MANIFESTS.clear()
            try:
                _MANIFESTS[adapter.digest] = await self.rooms.adapters.describe(adapter.ref)
            except (GatewayError, ContractError):
                return None
        return _MANIFESTS[adapter.digest]

    def path(self, below: str = "", *, tenant: str | None = None) -> str:
        """The address of one of the tenant's pages."""
        return f"/console/t/{tenant or self.tenant}/{below}"

    def page(self, template: str, *, title: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A whole page."""
        current = self.request.url.path.removeprefix(self.path() if self.tenant else "/console/").split("/")[0]
        return page_of(self.request, template, status=status, here=self, title=title, current=current, **values)

    def part(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A piece of a page, for htmx."""
        return page_of(self.request, template, status=status, here=self, **values)

    def go(self, below: str) -> Response:
        """To another of the tenant's pages, after a form."""
        reply = RedirectResponse(self.path(below), status_code=303)  # it quotes what no header may hold
        if self.request.headers.get("hx-request") == "true":
            return Response(status_code=204, headers={"hx-redirect": reply.headers["location"]})
        return reply


async def _signed_in(request: Request) -> Desk:
    """Raises `SignedOut`, and `Forbidden` for a form that does not carry the session's token."""
    rooms: Rooms = request.app.state.rooms
    cookie, now = request.cookies.get(COOKIE), datetime.now(UTC)
    found = session.read(cookie, admin_key=rooms.admin_key, current=rooms.current, now=now)
    if request.method not in SAFE:
        shown = request.headers.get("x-csrf-token") or (await _fields(request)).get("csrf", "")
        if not compare_digest(shown.encode(), found.token.encode()):
            raise Forbidden("This form is from another session.", remedy="Reload the page and try again.")
    return Desk(request, rooms, found.caller, found.token, "")


async def _in_tenant(tenant: str, desk: Annotated[Desk, Depends(_signed_in)]) -> Desk:
    """Raises `NotFound` for a tenant that is foreign or does not exist: the two look the same."""
    name = own_tenant(desk.caller, tenant)
    if name not in desk.rooms.current.snapshot.tenants:
        raise unknown("tenant", name, param="tenant")
    return Desk(desk.request, desk.rooms, desk.caller, desk.token, name)


async def _operator(desk: Annotated[Desk, Depends(_signed_in)]) -> Desk:
    require_operator(desk.caller)
    return desk


async def _fields(request: Request) -> dict[str, str]:
    """The form's fields as text, the last of a name. Raises `InvalidRequest` for NUL, which PostgreSQL cannot hold."""
    form: FormData = await request.form()
    fields = {name: value for name, value in form.multi_items() if not isinstance(value, UploadFile)}
    if any("\0" in value for value in fields.values()):
        raise InvalidRequest("The form holds a NUL character.", remedy="Remove it.")
    return fields


SignedIn = Annotated[Desk, Depends(_signed_in)]
Here = Annotated[Desk, Depends(_in_tenant)]
OperatorHere = Annotated[Desk, Depends(_operator)]
Fields = Annotated[dict[str, str], Depends(_fields)]
