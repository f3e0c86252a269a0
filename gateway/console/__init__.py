"""The web page: what the rooms know, for people. Server-rendered; it calls the rooms that the API calls, never HTTP.

    session.py    who has signed in          guard.py     headers, sizes and origins of every request, errors as pages
    here.py       who looks at which tenant, and how a page is made            sign_in.py   the way in and out
    assets.py     style, scripts and licences, all shipped      words.py   numbers, units, times and intervals as text

How to add a page:

1. A module beside this one, with `router = APIRouter()` and `PLACE = Place("feedback", "Feedback")` for its line in the
   navigation (`Place(…, operator=True)`: the operator's, outside of any tenant; None: no line). Name it in `PAGES`.
2. Its routes begin with `/t/{tenant}/` and take `here: Here` (here.py), which is only given to a signed-in caller who
   administers that tenant; anybody else gets the 404 of what does not exist. Routes of the operator begin otherwise and
   take `here: OperatorHere`. `here.rooms` are the rooms, `here.tenant` the tenant's name, `here.actor` whom the audit
   log names. Sessions, CSRF and sizes are seen to before your function runs.
3. `return here.page("feedback.jinja", title="Feedback", rows=rows)` renders a template that says `{% extends
   "layout.jinja" %}` and fills `{% block main %}`; `here.part("feedback_rows.jinja", …)` a piece for htmx, without the
   layout. Everything is escaped; never use `|safe`. Filters are in words.py, macros in templates/parts.jinja.
4. A form is `<form method="post">` with `{{ parts.token(here) }}` inside, read by `fields: Fields` (here.py); it ends
   in `here.go("feedback")` (303 within the tenant). htmx's requests carry the token by themselves; a script's own
   `fetch` sends it as the header `x-csrf-token`. Raise a `GatewayError` when something is wrong: it becomes a page, or
   for htmx a notice on the page that is there.
5. Scripts are files in static/, named in `{% block scripts %}` by `asset("name.js")`; no inline script, handler or
   style passes the policy. Data for a script is an attribute in single quotes, `data-rows='{{ rows|tojson }}'`: of what
   htmx brings, script elements are taken out.
6. A plot is `{{ parts.plot(plot) }}` of a `plots.Plot`.
7. tests/console: `desk` is a signed-in browser on a real gateway (conftest.py says more).

It knows no SQL and decides nothing: what may be done and what it means is the rooms' business.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import RedirectResponse

from gateway.api.rooms import Rooms
from gateway.console import (
    adapters,
    answers,
    assets,
    audit,
    experiments,
    feedback,
    keys,
    pairs,
    playground,
    power,
    rounds,
    sign_in,
    starting,
    steps,
    tenants,
    traffic,
)
from gateway.console.asking import Asking
from gateway.console.guard import Guard, install
from gateway.console.here import navigation
from gateway.console.recent import Recent

PREFIX = "/console"

PAGES = (
    starting,
    power,
    experiments,
    steps,
    adapters,
    traffic,
    feedback,
    answers,
    pairs,
    playground,
    rounds,
    audit,
    keys,
    tenants,
)
"""In the order of the navigation, and of matching: `experiments/new` comes before `experiments/{experiment}`."""


def build(rooms: Rooms) -> FastAPI:
    """The console as an application of its own, to be mounted at `PREFIX`."""
    app = FastAPI(title="Tuneloop's console", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.rooms = rooms
    app.state.recent = Recent(rooms.db)
    app.state.asking = Asking(rooms.door, rooms.keys, rooms.current)
    app.state.navigation = navigation(page.PLACE for page in PAGES)
    install(app)
    for room in (sign_in, assets, *PAGES):
        app.include_router(room.router)
    app.add_middleware(Guard)
    return app


def mount(app: FastAPI, rooms: Rooms) -> None:
    """Put the console beside the API's routes."""

    @app.get(PREFIX, include_in_schema=False)
    async def without_a_slash() -> RedirectResponse:
        return RedirectResponse(f"{PREFIX}/")

    app.mount(PREFIX, build(rooms))
