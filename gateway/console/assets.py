"""The files in static/: read once, served from memory under an address that changes with their content."""

from __future__ import annotations

import hashlib
from importlib import resources

from fastapi import APIRouter
from starlette.responses import Response

from gateway.errors import NotFound

router = APIRouter()

_KINDS = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
_FILES = {file.name: file.read_bytes() for file in resources.files("gateway.console").joinpath("static").iterdir()}
_MARKS = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _FILES.items()}


def asset(name: str) -> str:
    """The address of a file in static/. Raises `KeyError` for one that is not there."""
    return f"/console/static/{_MARKS[name]}/{name}"


@router.get("/static/{mark}/{name}")
async def show(mark: str, name: str) -> Response:
    """Whoever asks: it is the same for all, and anybody can read it in our repository."""
    if _MARKS.get(name) != mark:
        raise NotFound("There is no such file.")
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(_FILES[name], media_type=_KINDS[name.rpartition(".")[2]], headers=headers)
