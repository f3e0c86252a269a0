"""uvicorn's own request cycle, as its protocol would make it: how a request reaches an ASGI application behind a front.

uvicorn does not call `RequestResponseCycle` public: this is the one place that knows what it takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol, cast
from urllib.parse import unquote

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gateway.serving.call import Header

_log = logging.getLogger("gateway.front")


class Done(Protocol):
    """Called when an answer has been written."""

    def __call__(self, *, keep: bool) -> None: ...


class Cycles:
    """Makes the cycles of one connection."""

    __slots__ = ("_app_state", "_config", "_done", "_flow", "_state", "_transport")

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        app_state: dict[str, Any],
        transport: asyncio.Transport,
        flow: FlowControl,
        done: Done,
    ) -> None:
        self._config, self._state, self._app_state = config, state, app_state
        self._transport, self._flow, self._done = transport, flow, done

    def make(
        self, method: str, path: str, url: bytes, headers: Sequence[Header], *, modern: bool, keep: bool
    ) -> RequestResponseCycle:
        """`modern`: HTTP/1.1, not 1.0. `keep`: the connection may take another request after this."""
        scope = {
            "type": "http",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1" if modern else "1.0",
            "server": self._transport.get_extra_info("sockname"),
            "client": self._transport.get_extra_info("peername") or None,
            "scheme": "http",
            "root_path": "",
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": path.encode("latin-1"),
            "query_string": url.partition(b"?")[2],
            "headers": headers,
            "state": self._app_state.copy(),
        }
        cycle = RequestResponseCycle(
            scope=cast(Any, scope),
            transport=self._transport,
            flow=self._flow,
            logger=_log,
            access_logger=_log,
            access_log=False,
            default_headers=self._state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=(b"expect", b"100-continue") in headers,
            keep_alive=keep,
            on_response=lambda: self._done(keep=cycle.keep_alive),
        )
        return cycle
