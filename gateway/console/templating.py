"""Templates into pages. Everything that is filled in is escaped; a name that a template misspells fails loudly."""

from __future__ import annotations

from typing import Any

import jinja2
from fastapi import Request
from starlette.responses import HTMLResponse

from gateway.console import words
from gateway.console.assets import asset


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("gateway.console"),
        autoescape=True,  # by name it would pass over *.jinja
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(words.FILTERS)
    made.globals.update(asset=asset)
    return made


_TEMPLATES = _environment()


def page_of(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A rendered template. `here` is None where nobody is signed in."""
    values = {"here": None, "navigation": request.scope["app"].state.navigation, "current": None} | values
    text = _TEMPLATES.get_template(template).render(status=status, **values)
    # JSON that a client sent, and that is shown, can hold half of a surrogate pair.
    return HTMLResponse(text.encode("utf-8", "replace"), status_code=status)
