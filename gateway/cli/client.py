"""Speaking to the control plane: one call, its JSON, or one sentence on standard error and exit status 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    import httpx

Json = Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")]
TenantName = Annotated[str, typer.Argument(metavar="TENANT")]

SECONDS = 180.0
"""A swap may take this long: it waits until every worker holds the new version and has taken up the change."""


def fail(sentence: str) -> NoReturn:
    """Say why on standard error, and leave with status 1."""
    typer.echo(sentence, err=True)
    raise typer.Exit(1)


def call(method: str, path: str, body: Any = None, *, query: dict[str, Any] | None = None) -> Any:
    """One call of `/admin/v1{path}`; returns the parsed answer, None where there is none."""
    with _client() as client, _told(client):
        reply = client.request(method, f"/admin/v1{path}", json=body, params=_given(query))
        return _parsed(reply)


def send(path: str, content: Iterable[bytes], *, size: int, kind: str, query: dict[str, Any]) -> Any:
    """POST `size` bytes as they come; returns the parsed answer."""
    headers = {"content-type": kind, "content-length": str(size)}
    with _client() as client, _told(client):
        reply = client.post(f"/admin/v1{path}", content=content, headers=headers, params=_given(query))
        return _parsed(reply)


def stream(path: str, *, query: dict[str, Any]) -> Iterator[bytes]:
    """GET, a piece at a time."""
    with _client() as client, _told(client), client.stream("GET", f"/admin/v1{path}", params=_given(query)) as reply:
        if reply.is_error:
            reply.read()
            _parsed(reply)
        yield from reply.iter_bytes()


def every(path: str) -> list[dict[str, Any]]:
    """All rows of a list, page after page."""
    rows: list[dict[str, Any]] = []
    after = None
    while True:
        page = call("GET", path, query={"after": after})
        rows += page["data"]
        after = page["next"]
        if not page["has_more"]:
            return rows


def segment(text: str) -> str:
    """What a person typed, as one part of a path and never more."""
    return quote(text, safe="") or "-"


def show(answer: Any, *, as_json: bool, text: str) -> None:
    """Print the result: `text`, or the whole answer."""
    typer.echo(json.dumps(answer, ensure_ascii=False) if as_json else text)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows as tab-separated columns without a heading, or as a JSON list."""
    if as_json:
        typer.echo(json.dumps(list(rows), ensure_ascii=False))
        return
    for row in rows:
        typer.echo("\t".join(cell(row[column]) for column in columns))


def cell(value: Any) -> str:
    """One value as people read it: `-` for nothing, four digits of a fraction, no tabs or line ends."""
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ",".join(map(cell, value))
    if isinstance(value, dict):
        return ",".join(f"{name}={cell(item)}" for name, item in value.items()) or "-"
    return " ".join(str(value).split())


@contextmanager
def _client() -> Iterator[httpx.Client]:
    import httpx

    from gateway.settings import client_settings

    where = client_settings()
    if where.admin_key is None:
        fail("No admin key: set GATEWAY_ADMIN_KEY (`gateway serve` keeps a generated one in HOME/admin.key).")
    headers = {"authorization": f"Bearer {where.admin_key}"}
    try:
        client = httpx.Client(base_url=where.url, headers=headers, timeout=SECONDS, trust_env=False)
    except (httpx.InvalidURL, ValueError):
        fail("GATEWAY_URL or GATEWAY_ADMIN_KEY is malformed: the URL looks like http://127.0.0.1:8080.")
    with client:
        yield client


@contextmanager
def _told(client: httpx.Client) -> Iterator[None]:
    """Connection trouble as a sentence."""
    import httpx

    try:
        yield
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        fail("GATEWAY_URL is malformed: it looks like http://127.0.0.1:8080.")
    except httpx.ConnectError:
        fail(f"No gateway answers at {client.base_url}: start one with `gateway serve`, or set GATEWAY_URL.")
    except httpx.HTTPError as error:
        fail(f"The gateway at {client.base_url} did not answer as it should ({type(error).__name__}).")


def _parsed(reply: httpx.Response) -> Any:
    if reply.is_success:
        return reply.json() if reply.content else None
    try:
        sentence = str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        sentence = f"Status {reply.status_code} from {reply.url.host}: is this a gateway's address?"
    fail(" ".join(sentence.split()))


def _given(query: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def write_out(pieces: Iterable[bytes], *, to: str | None) -> None:
    """Bytes to a file, or to standard output."""
    if to is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    try:
        with open(to, "wb") as file:  # noqa: PTH123 — what a person typed, as it is
            for piece in pieces:
                file.write(piece)
    except OSError as error:
        fail(f"Cannot write {to}: {error.strerror}.")
