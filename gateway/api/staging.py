"""Bodies of any size, as files: they cost disk and no memory. What is in them is for others to judge."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

from fastapi import Request

from gateway.api.bodies import IdentifiedRoute
from gateway.errors import PayloadTooLarge, Unavailable

log = logging.getLogger("gateway.api.staging")


class StagedRoute(IdentifiedRoute):
    """A route for callers with a key that reads its body itself."""

    reads_json = False


@asynccontextmanager
async def staged(request: Request, directory: Path, too_large: PayloadTooLarge, *, limit: int) -> AsyncIterator[Path]:
    """The request's body as a file, gone afterwards. Raises `too_large` as soon as it is known to exceed `limit` bytes,
    `Unavailable` when the disk does not take it."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise too_large
    with _disk_permitting():
        file = await asyncio.to_thread(_temporary, directory)
    with file:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large
            with _disk_permitting():
                await asyncio.to_thread(file.write, chunk)
        with _disk_permitting():
            file.flush()
        yield Path(file.name)


def _temporary(directory: Path) -> IO[bytes]:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return tempfile.NamedTemporaryFile(dir=directory, suffix=".upload")


@contextmanager
def _disk_permitting() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.error("an upload could not be staged: %s", error.strerror)
        raise Unavailable("The upload cannot be stored now.", remedy="Try later.", code="storage_failed") from error
